"""The model of what arrives at the outputs, against its definition written out, and against networks."""

import numpy as np
import pytest
import torch

from fewbits.search.propagation import Alone, Propagation


def candidates(seed=0, groups=5, count=4, directions=3):
    rng = np.random.default_rng(seed)
    along = [-np.sort(rng.uniform(0, 0.3, count)) for _ in range(groups)]
    shift = [rng.normal(0, 0.1, (count, directions)) for _ in range(groups)]
    noise = [part**2 + (vectors**2).sum(1) + np.sort(rng.lognormal(-5, 1, count))
             for part, vectors in zip(along, shift, strict=True)]
    return Alone.of(noise, along, shift)


def drawn(count, seed, groups=5, candidates=4):
    return [tuple(plan) for plan in np.random.default_rng(seed).integers(candidates, size=(count, groups)).tolist()]


def by_hand(alone, plan, factors, shared):
    """One tensor after the other, as the module's first lines say it."""
    own = [alone.gain[at][number] * np.exp(factors[0, at]) for at, number in enumerate(plan)]
    shift, rest = np.zeros(alone.shift[0].shape[1]), 0.0
    for at, number in enumerate(plan):
        behind = sum(own[later] * np.exp(factors[3, later]) for later in range(at + 1, len(plan)))
        before = sum(own[earlier] * np.exp(factors[4, earlier]) for earlier in range(at))
        shift += alone.shift[at][number] * np.exp(shared[0] + factors[1, at] + np.exp(shared[2]) * behind
                                                  + shared[3] * before)
        rest += alone.rest[at][number] * np.exp(shared[1] + factors[2, at] + 2 * np.exp(shared[4]) * behind
                                                + 2 * shared[5] * before)
    return (1 - np.exp(sum(own))) ** 2 + shift @ shift + rest


def test_the_prediction_is_its_definition():
    alone, rng = candidates(), np.random.default_rng(1)
    factors, shared = rng.normal(0, 0.5, (5, 5)), rng.normal(0, 0.5, 6)
    model = Propagation(alone, torch.tensor(factors), torch.tensor(shared))
    plans = drawn(20, 2)
    wanted = [by_hand(alone, plan, factors, shared) for plan in plans]
    assert model.predict(plans) == pytest.approx(wanted, rel=1e-12)


def test_one_tensor_alone_has_the_noise_that_was_measured():
    """The parts of a candidate's noise are all of it; along the outputs it is that of their gain."""
    rng = np.random.default_rng(0)
    y, moved = rng.normal(size=(40, 3)), 0.1 * rng.normal(size=(40, 3)) + [0.2, 0.0, -0.1]
    moved -= 0.15 * y
    energy = (y**2).sum()
    along = (moved * y).sum() / energy
    shift = (moved - along * y).mean(0) * (40 / energy) ** 0.5
    noise = (moved**2).sum() / energy
    nothing = np.zeros(3)
    alone = Alone.of([np.array([0.0, noise])] * 2, [np.array([0.0, along])] * 2, [np.array([nothing, shift])] * 2)
    assert Propagation.of(alone).predict([(1, 0), (0, 1), (0, 0)]) == pytest.approx([noise, noise, 0.0], rel=1e-9)


def test_shifts_reinforce_each_other_or_cancel():
    shift = np.array([[0.0], [0.3]])
    alone = Alone.of([np.array([0.0, 0.09])] * 3, [np.zeros(2)] * 3, [shift, shift, -shift])
    both, apart = Propagation.of(alone).predict([(1, 1, 0), (1, 0, 1)])
    assert both == pytest.approx(0.36)
    assert apart == pytest.approx(0.0, abs=1e-12)


def test_whole_plans_correct_it():
    """Plans of a network whose factors are known: others are predicted better than before."""
    alone, rng = candidates(), np.random.default_rng(3)
    truth = Propagation(alone, torch.tensor(rng.normal(0, 0.5, (5, 5))), torch.tensor(rng.normal(0, 0.3, 6)))
    taught, new = drawn(400, 4), drawn(100, 5)
    before, after = Propagation.of(alone), Propagation.of(alone).corrected(taught, truth.predict(taught))
    wanted = np.log(truth.predict(new))
    errors = [np.abs(np.log(model.predict(new)) - wanted).mean() for model in (before, after)]
    assert errors[1] < 0.02 < 0.2 < errors[0]


def test_few_plans_move_factors_little_and_none_move_nothing():
    model = Propagation.of(candidates())
    plans = [(0,) * 5, (3,) * 5]
    told = np.array([1.5, 0.7])
    found = model.corrected(plans, model.predict(plans) * told)
    left = np.abs(np.log(model.predict(plans) * told / found.predict(plans)))
    assert np.all(left < 0.5 * np.abs(np.log(told)))
    assert found.factors.abs().max() < 0.5  # the standard deviation that they have before
    assert model.corrected([], []) is model


def test_what_has_no_program_is_infinite():
    alone = candidates()
    alone.rest[2][3] = np.inf
    assert np.isinf(Propagation.of(alone).predict([(0, 0, 3, 0, 0)])[0])

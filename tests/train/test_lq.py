"""Learned bases (LQ-Nets) against a slow reading of the paper: every code of every number tried, the basis by normal
equations in exact fractions, and cases worked by hand."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizers import gradient, ready

from fewbits.capture.capture import capture
from fewbits.errors import EncodingError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.formats import parse
from fewbits.program.ops import Threshold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import Site
from fewbits.quant.planner import plan
from fewbits.quant.spec import Spec
from fewbits.train.lq import LearnedBasisActivations, LearnedBasisWeights
from fewbits.train.registry import trainable

numbers = st.floats(-8, 8, width=16)


def weights_of(shape, bits, block=CHANNEL):
    return ready(LearnedBasisWeights(Site("w", "weight", tuple(shape), Spec(parse("int8"), True, block), "test"), bits))


def activations_of(bits, basis):
    levels = ",".join(str(code) for code in range(2**bits))
    spec = Spec(parse(f"table({levels})"), True, TENSOR, integers=parse("int8"))
    made = ready(LearnedBasisActivations(Site("x", "activation", (None, 4), spec, "test")))
    made.basis.copy_(torch.tensor([basis]))
    made.begun.fill_(True)
    return made


def as_it_stands(quantizer, x):
    """What it gives without a step of the basis."""
    quantizer.eval()
    y = quantizer(x).detach()
    quantizer.train()
    return y


def slow_codes(x, basis, choices):
    """For each number the code of the nearest level, of the lower level half way between two."""
    found = []
    for number in x:
        ranked = sorted((abs(Fraction(number) - level), level, code) for code in product(choices, repeat=len(basis))
                        for level in [sum(Fraction(v) * c for v, c in zip(basis, code, strict=True))])
        found.append(ranked[0][2])
    return found


def slow_step(x, basis, choices):
    """0.9 of the basis and 0.1 of (B Bᵀ)⁻¹ B x, in fractions; the basis where B Bᵀ has no inverse."""
    codes, k = slow_codes(x, basis, choices), len(basis)
    rows = [[Fraction(sum(code[i] * code[j] for code in codes)) for j in range(k)]
            + [sum((Fraction(number) * code[i] for number, code in zip(x, codes, strict=True)), Fraction(0))]
            for i in range(k)]
    for at in range(k):  # Gauss and Jordan
        pivot = next((row for row in range(at, k) if rows[row][at]), None)
        if pivot is None:
            return list(basis)
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = [value / rows[at][at] for value in rows[at]]
        for other in range(k):
            if other != at:
                rows[other] = [a - rows[other][at] * b for a, b in zip(rows[other], rows[at], strict=True)]
    return [0.9 * v + 0.1 * float(row[-1]) for v, row in zip(basis, rows, strict=True)]


@settings(max_examples=60)
@given(x=st.lists(numbers, min_size=4, max_size=20), bits=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_step_of_weights_is_the_papers(x, bits, seed):
    basis = (np.random.default_rng(seed).uniform(0.1, 3, bits)).astype(np.float32).tolist()
    quantizer = weights_of((1, len(x)), bits)
    quantizer.basis.copy_(torch.tensor([basis]))
    weight = torch.tensor([x])
    before = as_it_stands(quantizer, weight)
    quantizer(weight)
    levels = [sum(v * c for v, c in zip(basis, code, strict=True)) for code in slow_codes(x, basis, (-1, 1))]
    largest = sum(basis)
    expected = torch.tensor([round(level / largest * 127) / 127 * largest for level in levels])
    torch.testing.assert_close(before[0], expected, rtol=1e-5, atol=largest * 1e-2)  # a tie of two roundings
    assert (before[0] - expected).abs().gt(1e-5 * largest).sum() <= 1
    wanted = slow_step(x, basis, (-1, 1))
    np.testing.assert_allclose(quantizer.basis[0], wanted, rtol=1e-4, atol=1e-5)


@settings(max_examples=60)
@given(x=st.lists(numbers.map(abs), min_size=4, max_size=20), bits=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_step_of_activations_is_the_papers(x, bits, seed):
    basis = (np.random.default_rng(seed).uniform(0.1, 3, bits)).astype(np.float32).tolist()
    quantizer = activations_of(bits, basis)
    y = as_it_stands(quantizer, torch.tensor([x]))[0]
    quantizer(torch.tensor([x]))
    levels = [sum(v * c for v, c in zip(basis, code, strict=True)) for code in slow_codes(x, basis, (0, 1))]
    largest = sum(basis)
    assert (y - torch.tensor(levels)).abs().max() <= largest / 127 / 2 * 1.001, "half a step of the integers"
    np.testing.assert_allclose(quantizer.basis[0], slow_step(x, basis, (0, 1)), rtol=1e-4, atol=1e-5)


def test_binary_weights_by_hand():
    """One number: the best is the mean magnitude, 2.5; 0.9 · 1 + 0.1 · 2.5 = 1.15."""
    quantizer = weights_of((1, 4), 1)
    quantizer.basis.fill_(1.0)
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    assert as_it_stands(quantizer, weight).tolist() == [[1.0, -1.0, 1.0, -1.0]]
    y, slope = gradient(quantizer, weight, 0.3)
    torch.testing.assert_close(y, torch.tensor([[1.15, -1.15, 1.15, -1.15]]))
    assert torch.equal(slope, torch.full_like(weight, 0.3))


def test_two_bits_of_weights_by_hand():
    """Basis 1, 2: levels −3, −1, 1, 3. 4, 1.5, −2.5, −0.5 take (1, 1), (−1, 1), (−1, −1), (1, −1), so that B Bᵀ is 4
    times the identity and B x is (4.5, 8.5): the best is 1.125, 2.125. A zero lies half way and goes down."""
    quantizer = weights_of((2, 4), 2)
    quantizer.basis.copy_(torch.tensor([[1.0, 2.0], [1.0, 2.0]]))
    weight = torch.tensor([[4.0, 1.5, -2.5, -0.5], [0.0, 2.0, -2.0, 2.001]])
    codes = [[127, 42, -127, -42], [-42, 42, -127, 127]]  # 1 is 42.33 steps of 3 / 127
    torch.testing.assert_close(as_it_stands(quantizer, weight), torch.tensor(codes) * (3 / 127))
    assert quantizer.integers(weight.numpy()).codes.tolist() == codes
    quantizer(weight)
    torch.testing.assert_close(quantizer.basis[0], torch.tensor([1.0125, 2.0125]))


def test_two_bits_of_activations_by_hand():
    """Basis 1, 2: levels 0 to 3, thresholds 0.5, 1.5, 2.5. 0.2, 1.2, 2, 4 and 0 take 0, v1, v2, v1 + v2 and 0: B Bᵀ is
    (2 1; 1 2), B x (5.2, 6), the best (4.4, 6.8) / 3. The gradient ends at the highest level."""
    quantizer = activations_of(2, [1.0, 2.0])
    x = torch.tensor([[0.2, 1.2, 2.0, 4.0, 0.0]])
    torch.testing.assert_close(as_it_stands(quantizer, x), torch.tensor([[0, 42, 85, 127, 0]]) * (3 / 127))
    _, slope = gradient(quantizer, x)
    assert slope.tolist() == [[1, 1, 1, 0, 1]]
    torch.testing.assert_close(quantizer.basis, torch.tensor([[0.9 + 0.44 / 3, 1.8 + 0.68 / 3]]))


def test_numbers_without_a_say_leave_the_basis():
    """All weights take the same code, and B Bᵀ has no inverse; so has that of a layer whose activations are all 0."""
    quantizer = weights_of((1, 3), 2)
    quantizer.basis.copy_(torch.tensor([[1.0, 2.0]]))
    quantizer(torch.tensor([[5.0, 6.0, 7.0]]))
    assert quantizer.basis.tolist() == [[1.0, 2.0]]
    dead = activations_of(2, [1.0, 2.0])
    assert not dead(torch.zeros(2, 4)).any()
    assert dead.basis.tolist() == [[1.0, 2.0]]
    assert not weights_of((2, 3), 2)(torch.zeros(2, 3)).any()


def test_the_start_is_a_fixed_point():
    """No whole step from there changes a code."""
    weight = torch.randn(4, 200, generator=torch.Generator().manual_seed(0))
    quantizer = weights_of(weight.shape, 2)
    quantizer.eval()
    quantizer(weight)
    for row, basis in zip(weight.tolist(), quantizer.basis.tolist(), strict=True):
        whole = [10 * (after - 0.9 * v) for v, after in zip(basis, slow_step(row, basis, (-1, 1)), strict=True)]
        np.testing.assert_allclose(whole, basis, rtol=1e-4)


def test_the_start_of_normal_weights_is_the_best_quantizer():
    """Levels ±0.4528 and ±1.510 (Max 1960, Table I, N = 4): v1 = (1.510 − 0.4528) / 2, v2 = (1.510 + 0.4528) / 2."""
    weight = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(20000) + 0.5) / 20000)[None]
    quantizer = weights_of(weight.shape, 2)
    quantizer.eval()
    quantizer(weight)
    np.testing.assert_allclose(quantizer.basis[0], [0.5286, 0.9814], atol=2e-3)


def test_learned_levels_are_what_the_program_holds():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6), torch.nn.ReLU(),
                              torch.nn.Linear(6, 3))
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = fold(capture(net, x))
    learning = trainable(calibrate(model, plan(model, "lq-w2a2"), [x]))
    learning.train()
    for _ in range(3):
        learning(x)
    learning.eval()
    thresholds = [node for node in lower(learning).nodes if isinstance(node, Threshold)]
    assert len(thresholds) == 1, "before the second layer; the last one reads 8 bits"
    quantizer = next(each for each in learning.modules() if isinstance(each, LearnedBasisActivations))
    quantizer.settle()
    v1, v2 = sorted(quantizer.basis[0].tolist())
    steps = [0, round(v1 / (v1 + v2) * 127), round(v2 / (v1 + v2) * 127), 127]
    assert thresholds[0].levels.tolist() == steps
    assert steps != [0, 42, 85, 127], "something was learned"


def test_activations_begin_at_even_levels():
    with pytest.raises(EncodingError, match=r"such as table\(0,1,2,3\) per tensor"):
        LearnedBasisActivations(Site("x", "activation", (None, 4), Spec(parse("uint2"), False, TENSOR), "test"))

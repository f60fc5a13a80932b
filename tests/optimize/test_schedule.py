"""When and how sharply AdaRound and BRECQ ask for a decision: β falls from its first value to its last, after the warm
start, in each layer or block."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.optimize import adaround, brecq
from fewbits.optimize.adaround import Schedule, beta_at

SCHEDULE = Schedule(iterations=20, warm_start=0.25, beta=(16.0, 3.0))


@pytest.fixture
def sim():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    x = torch.randn(16, 2, 6, 6)
    model = fb.fold(fb.capture(net.eval(), x))
    return fb.calibrate(model, fb.plan(model, "w4a8"), [x]), x


def betas_of(module, repair, monkeypatch) -> list[list[float]]:
    """β of each iteration that has one, by layer or block: how often the roundings are asked and with what."""
    asked: list[float] = []
    plain = module.undecided
    monkeypatch.setattr(module, "undecided", lambda h, beta: (asked.append(beta), plain(h, beta))[1])
    repair()
    after_warm_start = 15  # of 20 iterations; each asks once, for the one weight of the layer or block
    assert len(asked) % after_warm_start == 0 and len(asked) >= 2 * after_warm_start
    return [asked[i:i + after_warm_start] for i in range(0, len(asked), after_warm_start)]


@pytest.mark.parametrize(("module", "repair"), [(adaround, fb.adaround), (brecq, fb.reconstruct_blocks)])
def test_beta_falls_from_first_to_last(module, repair, sim, monkeypatch):
    simulation, x = sim
    for betas in betas_of(module, lambda: repair(simulation, [x], schedule=SCHEDULE), monkeypatch):
        assert betas[0] == 16.0
        assert all(one > following for one, following in pairwise(betas))
        assert betas[-1] == pytest.approx(3.0 + 6.5 * (1 + np.cos(np.pi * 14 / 15)))
        assert betas == [beta_at(i, 20, 0.25, (16.0, 3.0)) for i in range(5, 20)]


def test_beta_by_hand():
    """Held at its first value through the warm start, half way in the middle of the rest, its last at the end."""
    assert [beta_at(i, 100, 0.2, (20.0, 2.0)) for i in (0, 10, 20)] == [20.0, 20.0, 20.0]
    assert beta_at(60, 100, 0.2, (20.0, 2.0)) == pytest.approx(11.0)
    assert beta_at(100, 100, 0.2, (20.0, 2.0)) == pytest.approx(2.0)
    assert beta_at(40, 100, 0.2, (20.0, 2.0)) > 11.0 > beta_at(80, 100, 0.2, (20.0, 2.0))


def test_a_low_power_decides_what_a_high_one_leaves():
    """Why it falls: |2h − 1|^β pulls on what is nearly decided only while β is low."""
    h = torch.tensor([0.6, 0.75, 0.9], requires_grad=True)
    (high,) = torch.autograd.grad(brecq.undecided(h, 20.0).sum(), h)
    (low,) = torch.autograd.grad(brecq.undecided(h, 2.0).sum(), h)
    assert (low < high).all() and (high[:2] > -0.01).all()

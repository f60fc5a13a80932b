"""Shift-based batch norm beside its formula, number by number, and through to the program."""

import math

import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.testing import differences
from fewbits.train.fit import Adam, fit
from fewbits.train.registry import trainable
from fewbits.train.shift_norm import WithShiftNorms, ap2, shift_normalized


def slow_ap2(x):
    return 0.0 if x == 0 else math.copysign(2.0 ** round(math.log2(abs(x))), x)


def test_by_hand():
    """log2 0.7 = −0.51 rounds to −1, log2 3 = 1.58 to 2, log2 −0.26 to −2."""
    assert ap2(torch.tensor([0.7, 3.0, -0.26, 0.0, 4.0])).tolist() == [0.5, 4.0, -0.25, 0.0, 4.0]
    # one channel of −3 and 3: σ = 3, 1/3 becomes 1/4 (log2 = −1.58), γ = 3 becomes 4: −3 · 1/4 · 4 + 1 = −2
    x = torch.tensor([[-3.0], [3.0]])
    assert shift_normalized(x, torch.tensor([3.0]), torch.tensor([1.0]), 0.0).reshape(-1).tolist() == [-2.0, 4.0]


@pytest.mark.parametrize("shape", [(16, 3), (6, 3, 4, 4)])
def test_the_formula(shape):
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(shape, generator=generator) + 1).double()
    gain, offset = torch.tensor([0.9, -2.9, 0.0]).double(), torch.tensor([0.1, 0.0, -1.0]).double()
    got = shift_normalized(x, gain, offset, 1e-5)
    for channel in range(3):
        numbers = x[:, channel].reshape(-1).tolist()
        mean = sum(numbers) / len(numbers)
        variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
        factor = slow_ap2(1 / math.sqrt(variance + 1e-5)) * slow_ap2(gain[channel].item())
        slow = [(number - mean) * factor + offset[channel].item() for number in numbers]
        assert got[:, channel].reshape(-1).tolist() == pytest.approx(slow, abs=1e-12)


def test_what_is_trained_is_what_runs():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Hardtanh(), nn.Flatten(), nn.Linear(96, 12),
                            nn.BatchNorm1d(12), nn.Hardtanh(), nn.Linear(12, 3)).eval()
        x, y = torch.randn(30, 1, 6, 6), torch.arange(30) % 3
    model = fold(capture(net, x), norms="keep")
    shifting = WithShiftNorms(trainable(calibrate(model, plan(model, "qnn-w2a2"), [x])))
    losses = fit(shifting, [(x, y)], epochs=30, optimizer=Adam(5e-2), quiet=True)
    assert losses[-1] < losses[0]
    settled = shifting.settled()
    with torch.no_grad():
        assert torch.equal(shifting(x), settled(x)), "evaluated as it is lowered"
    for norm in ("1", "5"):
        state = settled.model.state_dict()
        factor = state[f"{norm}.weight"].double() / torch.sqrt(state[f"{norm}.running_var"].double() + 1e-5)
        exponents = torch.log2(factor.abs())
        torch.testing.assert_close(exponents, exponents.round(), atol=1e-5, rtol=0)
    program = lower(settled)
    assert not differences(program, {program.inputs[0]: x.numpy()})

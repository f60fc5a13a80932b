"""Average pools under profiles of integer arithmetic round on their input's grid, and the simulation with them."""

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.program.profile import PROFILES
from fewbits.quant.simulation import SimulationVisitor

X = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
POOLS = {
    "2 x 2": nn.AvgPool2d(2), "padded": nn.AvgPool2d(3, 2, 1), "padding does not count": nn.AvgPool2d(
        3, 2, 1, count_include_pad=False), "beyond the edge": nn.AvgPool2d(3, 2, ceil_mode=True),
    "adaptive": nn.AdaptiveAvgPool2d((5, 3)), "global": nn.AdaptiveAvgPool2d(1),
    "three": nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(2), nn.AvgPool2d(2)),
    "with a ReLU": nn.Sequential(nn.AvgPool2d(2), nn.ReLU())}


def simulated(pool):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), pool, nn.Conv2d(8, 4, 1), nn.Flatten()).eval()
    model = fb.fold(fb.capture(net, X[:2]))
    return fb.calibrate(model, fb.plan(model, "w8a8-signed"), [X])


def decibels(right, got):
    return float(10 * torch.log10(right.double().square().sum() / (right.double() - got.double()).square().sum()))


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_what_is_simulated_is_what_runs(pool):
    """Under single rounding, whose layers round once as the simulation does: what is left is float rounding."""
    sim = simulated(pool)
    program = fb.lower(sim, "litert-single-rounding")
    with torch.no_grad():
        assert decibels(program(X), sim(X)) > 100


@pytest.mark.parametrize("profile", ["gemmlowp", "litert"])
@pytest.mark.parametrize("pool", [POOLS["2 x 2"], POOLS["padded"]], ids=["2 x 2", "padded"])
def test_double_rounding_comes_nearer(pool, profile):
    """Their layers round twice, which the simulation does not: the pool adds nothing to that any more."""
    sim = simulated(pool)
    program = fb.lower(sim, profile)
    with torch.no_grad():
        following = decibels(program(X), sim(X))
        sim.follow(PROFILES["onnxruntime"])
        assert following > decibels(program(X), sim(X)) + 3


def test_profiles_of_floats_round_once():
    sim = simulated(POOLS["2 x 2"])
    before = sim(X)
    sim.follow(PROFILES["litert"])
    assert decibels(before, sim(X)) < 60
    sim.follow(PROFILES["onnxruntime"])
    assert torch.equal(sim(X), before)


def test_the_rounding_by_hand():
    """Codes 1 and 2 on a grid of step 1: their mean 1.5 becomes 2; -1 and -2 become -2."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.AvgPool2d((1, 2)), nn.Conv2d(1, 1, 1)).eval()
    x = torch.tensor([[[[1.0, 2.0, -1.0, -2.0, 127.0, -128.0]]]]).repeat(2, 1, 1, 1)
    model = fb.fold(fb.capture(net, x))
    sim = fb.calibrate(model, fb.plan(model, "w8a8-signed"), [x])
    fb.lower(sim, "litert")
    seen = {}

    class Seeing(SimulationVisitor):
        def value(self, name, value):
            if name == "0":
                seen[name] = self._averaged_codes(self._nodes[name], value)
            return super().value(name, value)

    with torch.no_grad():
        sim.run({"input": x}, Seeing(sim))
    assert seen["0"][0].flatten().tolist() == [2.0, -2.0, -1.0]

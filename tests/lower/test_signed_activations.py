"""Signed activations under a profile whose codes have no sign: the same numbers, their codes raised."""

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import LoweringError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.simulation_gap import simulation_gap
from fewbits.testing import differences


class Net(nn.Module):
    """A convolution that pads, an addition, a constant, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(48, 4)
        self.shift = nn.Parameter(torch.linspace(-1, 1, 3).reshape(3, 1, 1))

    def forward(self, x):
        return self.linear((self.conv(x) + self.shift).flatten(1))


def simulated(format, **more):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Net().eval(), torch.randn(8, 2, 4, 4)
    recipe = Recipe.model_validate({"version": 1, "weights": {"format": "int8"},
                                    "activations": {"format": format, "symmetric": True, **more}})
    model = fold(capture(net, x))
    return calibrate(model, plan(model, recipe), [x]), x


@pytest.mark.parametrize("profile", ["onnxruntime", "onnxruntime-portable"])
@pytest.mark.parametrize(("format", "more"), [("int8", {}), ("int4", {}), ("int2", {}), ("q3.5", {}),
                                              ("int8", {"symmetric": False}),
                                              ("int6", {"scale": "dynamic-activations"})])
def test_they_are_stored_without_their_sign(format, more, profile):
    if profile == "onnxruntime-portable":
        simulation, x = simulated(format, **more)
        simulation.quantizer("conv.weight").scale.mul_(2)
        simulation.quantizer("linear.weight").scale.mul_(2)
    else:
        simulation, x = simulated(format, **more)
    program = lower(simulation, profile)
    for value in program.values.values():
        if value.encoding is not None and value.encoding.format.bits <= 8:
            assert not value.encoding.format.signed
    site = simulation.quantizer("conv").encoding
    stored = program.encoding("conv")
    assert np.array_equal(stored.scale, site.scale)
    assert int(stored.zero_point) - int(site.zero_point) == 2 ** (site.format.bits - 1)
    assert not differences(program, {program.inputs[0]: (3 * x).numpy()})
    gap = simulation_gap(program, simulation, [x])
    assert gap.differing <= 2 + gap.compared // 1000, str(gap)


def test_a_narrow_range_has_no_such_codes():
    """Its lowest code would be one that it leaves out."""
    simulation, _ = simulated("int8-narrow")
    with pytest.raises(LoweringError, match="int8-narrow"):
        lower(simulation)

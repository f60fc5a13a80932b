"""Thresholds against the definition applied to every sum, and against every code in the engines."""

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import LoweringError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.lower.threshold import of_numbers, of_sums
from fewbits.numerics.catalogue import CATALOGUE
from fewbits.numerics.formats import Int, parse
from fewbits.numerics.integer_form import in_steps, integer_form, levels
from fewbits.program import ops as op
from fewbits.quant.calibrate import calibrate
from fewbits.quant.fake_quantize import on_steps
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.simulation_gap import simulation_gap
from fewbits.testing import differences

UNEVEN = ["binary", "ternary", "hwgq2", "e2m1", "pow2-3", "nf4", "e4m3", "e5m2", "logsqrt2-4"]


def form_of(format):
    return integer_form(format, None) or integer_form(format, Int(8))


@pytest.mark.parametrize("name", UNEVEN)
def test_every_sum_lands_where_the_definition_says(name):
    """Slow and independent: encode each of 2001 sums, count the thresholds it reaches."""
    format, rng = parse(name), np.random.default_rng(0)
    gain, offset = rng.normal(0, 0.01, 6), rng.normal(0, 1, 6)
    gain[2], gain[3], offset[3] = 0.0, 0.0, -offset[2]
    sums, bounds, scale = np.arange(-1000, 1001), (-1.5, 2.0), 0.4
    thresholds, direction = of_sums("here", format, form_of(format), scale, gain, offset, bounds, (-1000, 1000))
    steps = levels(format, form_of(format))
    for channel in range(6):
        got = steps[(direction[channel] * sums[:, None] >= thresholds[channel]).sum(1)]
        real = np.clip(abs(gain[channel]) * (direction[channel] * sums) + offset[channel], *bounds)
        assert np.array_equal(got, in_steps(format, form_of(format), real / scale)), channel


@pytest.mark.parametrize("name", UNEVEN)
def test_every_float_around_a_threshold(name):
    format, scale = parse(name), np.float32(0.37)
    thresholds = of_numbers(format, form_of(format), scale)[0]
    near = np.concatenate([thresholds, np.nextafter(thresholds, np.float32(-np.inf)),
                           np.linspace(-3, 3, 1001, dtype=np.float32), np.float32([0, -0.0, 1e-45, -1e-45])])
    near = near[np.isfinite(near)]
    got = levels(format, form_of(format))[(near[:, None] >= thresholds).sum(1)]
    assert np.array_equal(got, in_steps(format, form_of(format), near / scale))


def test_sums_beyond_32_bits_are_refused():
    with pytest.raises(LoweringError, match="beyond 32 bits"):
        of_sums("here", parse("binary"), form_of(parse("binary")), 1.0, np.array([1e-9]), np.array([-1e9]),
                (-np.inf, np.inf), (-(2**33), 2**33))


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 6, 3, padding=1, stride=2),
                            nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 5))
        net[3].running_mean.normal_(0, 0.1)
        return net.eval(), torch.rand(8, 2, 8, 8) - 0.3


def made(format, weights="int8", integers=None, everywhere=True):
    net, x = network()
    model = fold(capture(net, x), norms="keep")
    line = {"format": format, "integers": integers, "symmetric": parse(format).signed}
    recipe = {"version": 1, "weights": {"format": weights}, "activations": {"format": "uint8"},
              "rules": [{"op": "conv", "activations": line}, {"op": "function", "activations": line}]}
    if everywhere:
        recipe["activations"] = line
    return x, calibrate(model, plan(model, Recipe.model_validate(recipe)), [x])


EXACT = [each.name for each in CATALOGUE
         if not isinstance(each.format, Int) and integer_form(each.format, None) is not None]
WIDE = [name for name in EXACT if max(0, parse(name).values().max()) - min(0, parse(name).values().min())
        > 255 * integer_form(parse(name), None).step]


@pytest.mark.parametrize("name", [name for name in EXACT if name not in WIDE])
def test_activations_of_exact_formats_reach_integers(name):
    x, simulation = made(name, everywhere=parse(name).signed)  # inputs have both signs
    program = lower(simulation)
    assert not differences(program, {program.inputs[0]: x.numpy()})
    gap = simulation_gap(program, simulation, [x])
    assert gap.differing <= 1 + gap.compared / 500


@pytest.mark.parametrize("name", WIDE)
def test_numbers_that_span_too_many_steps_are_refused(name):
    _, simulation = made(name)
    with pytest.raises(LoweringError, match="span"):
        lower(simulation)


@pytest.mark.parametrize("name", ["e4m3", "nf4", "logsqrt2-4", "e5m2"])
def test_activations_of_other_formats_when_asked_to_round(name):
    x, simulation = made(name, integers="int8")
    program = lower(simulation)
    assert not differences(program, {program.inputs[0]: x.numpy()})
    gap = simulation_gap(program, simulation, [x])
    assert gap.differing <= 1 + gap.compared / 500
    assert {type(node) for node in program.nodes} >= {op.Threshold, op.Table}
    _, unasked = made(name)
    with pytest.raises(LoweringError, match=name):
        lower(unasked)


def test_a_sum_of_two_values_takes_integers_only():
    class Residual(nn.Module):
        def forward(self, x):
            return x + x.tanh()

    net, x = nn.Sequential(Residual(), nn.Flatten(), nn.Linear(4, 2)).eval(), torch.randn(4, 4)
    model = capture(net, x)
    recipe = Recipe.model_validate({"version": 1, "weights": {"format": "int8"}, "activations": {"format": "ternary"}})
    with pytest.raises(LoweringError, match="only dot products"):
        lower(calibrate(model, plan(model, recipe), [x]))


@pytest.mark.parametrize("name", [each.name for each in CATALOGUE
                                  if not isinstance(each.format, Int) and each.format.bits <= 8])
def test_a_number_half_way_between_two_integers_goes_one_way(name):
    """240 of e4m3-finite-zero is 63.5 of its 127 steps: in float32 it went to 64, in float64 to 63, and no sum reached
    the level."""
    format = parse(name)
    form = form_of(format)
    numbers = format.values()
    numbers = numbers[np.isfinite(numbers)].astype(np.float32)
    once = in_steps(format, form, numbers)
    assert np.array_equal(once, in_steps(format, form, numbers.astype(np.float64)))
    assert np.array_equal(once, on_steps(torch.from_numpy(numbers), form).numpy())

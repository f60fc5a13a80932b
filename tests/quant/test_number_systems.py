"""Any number system on a captured model with one line of a recipe: simulated exactly, or refused by name."""

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import EncodingError, LoweringError, RecipeError, RepairError
from fewbits.lower.lower import lower
from fewbits.numerics.catalogue import CATALOGUE
from fewbits.numerics.formats import Int, parse
from fewbits.numerics.integer_form import integer_form
from fewbits.numerics.rounding import RULES
from fewbits.optimize.adaround import adaround
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.ranges.microscaling import mx, nvfp4
from fewbits.ranges.scale import CONVENTIONS
from fewbits.report.simulation_gap import simulation_gap
from fewbits.testing import differences


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def simulated(weights, activations):
    net, x = network().eval(), torch.rand(8, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    model = capture(net, x)
    recipe = Recipe.model_validate({"version": 1, "weights": weights, "activations": activations})
    return net, x, calibrate(model, plan(model, recipe), [x])


@pytest.mark.parametrize("name", [each.name for each in CATALOGUE])
def test_one_line_for_weights_and_activations(name):
    format = parse(name)
    line = {"format": name, "symmetric": format.signed}
    # Weights have both signs: where a format has none, it is the activations that take it.
    weights = {"format": "int8"} if not format.signed and not isinstance(format, Int) else line
    net, x, simulation = simulated(weights, line)
    with torch.no_grad():
        y = simulation(x)
    assert torch.isfinite(y).all()
    assert y.shape == (8, 5)
    for quantizer in simulation.quantizers():
        data = torch.randn(4, 2, 8, 8) if "weight" not in quantizer.site else net[0].weight
        if quantizer.encoding.block.sizes and data.shape[0] != quantizer.scale.numel():
            continue
        with torch.no_grad():
            got = quantizer(data)
        expected = quantizer.encoding.encode(data.detach().numpy()).dequantize()
        # What has an integer form is simulated as its integers, whose scale is rounded once more.
        exact = isinstance(format, Int) or quantizer.integer_form is None
        np.testing.assert_allclose(got.numpy(), expected, rtol=0 if exact else 2e-7)


@pytest.mark.parametrize(("format", "size", "convention"), [
    ("e2m1", 32, "mx"), ("e4m3", 32, "mx"), ("int8", 32, "mx"), ("e2m1", 16, "nvfp4")])
def test_microscaling_is_one_line_of_a_recipe(format, size, convention):
    """The weights' blocks of MX and NVFP4, as ranges/microscaling.py finds them from the data itself."""
    torch.manual_seed(0)
    net, x = nn.Linear(64, 3).eval(), torch.randn(4, 64)
    model = capture(net, x)
    line = {"format": format, "block": [1, size], "scale": convention}
    recipe = Recipe.model_validate({"version": 1, "weights": line, "activations": {"format": "uint8"}})
    simulation = calibrate(model, plan(model, recipe), [x])
    weight = net.weight.detach().numpy()
    expected = nvfp4(weight) if convention == "nvfp4" else mx(weight, parse(format))
    quantizer = simulation.quantizer("weight")
    assert np.array_equal(quantizer.encoding.scale, expected.scale)
    assert np.array_equal(quantizer(net.weight).detach().numpy(), expected.encode(weight).dequantize())
    assert torch.isfinite(simulation(x)).all()
    with pytest.raises(LoweringError, match="'weight'"):
        lower(simulation)


@pytest.mark.parametrize("convention", [name for name in CONVENTIONS if name != "nvfp4"])
def test_every_convention_by_name(convention):
    _, x, simulation = simulated({"format": "int8", "scale": convention},
                                 {"format": "int8", "symmetric": True, "scale": convention})
    assert torch.isfinite(simulation(x)).all()


@pytest.mark.parametrize("name", ["e4m3", "bf16", "nf4"])
def test_gradients_pass_inside_the_range_only(name):
    _, _, simulation = simulated({"format": name}, {"format": "uint8"})
    quantizer = next(q for q in simulation.quantizers() if isinstance(q.spec.format, type(parse(name))))
    data = torch.randn(quantizer.scale.shape[0], 2, 3, 3, requires_grad=True)
    big = quantizer.scale.detach().reshape(-1, 1, 1, 1) * parse(name).largest
    (quantizer(data) * 3).sum().backward()
    torch.testing.assert_close(data.grad, torch.where(data.detach().abs() <= big, 3.0, 0.0))


def test_static_fixed_point_reaches_integers():
    """Q4.4 weights and unsigned fixed-point activations lower to a Program that every engine agrees on."""
    _, x, simulation = simulated({"format": "q4.4", "symmetric": True}, {"format": "uq4.4", "symmetric": False})
    program = lower(simulation)
    assert {float(v.encoding.scale) for v in program.values.values() if v.encoding is not None
            and v.encoding.format.bits == 8} == {2.0**-4}
    assert not differences(program, {program.inputs[0]: x.numpy()})


@pytest.mark.parametrize(("weights", "activations"), [("nf4", "uint8"), ("int8", "e4m3"), ("e4m3", "e4m3")])
def test_what_reaches_no_integers_is_refused_by_name(weights, activations):
    _, _, simulation = simulated({"format": weights}, {"format": activations})
    with pytest.raises(LoweringError, match=weights if weights != "int8" else activations):
        lower(simulation)


EXACT = [each.name for each in CATALOGUE
         if not isinstance(each.format, Int) and integer_form(each.format, None) is not None and each.format.signed]


@pytest.mark.parametrize(("name", "integers"), [*((name, None) for name in EXACT), ("nf4", "int8"), ("e4m3", "int8"),
                                                ("logsqrt2-4", "int8")])
def test_weights_of_floats_and_tables_reach_integers(name, integers):
    """Exactly where their numbers are multiples of one step, rounded to int8 where the recipe says so; what is
    simulated is what runs."""
    _, x, simulation = simulated({"format": name, "integers": integers}, {"format": "uint8"})
    program = lower(simulation)
    assert not differences(program, {program.inputs[0]: x.numpy()})
    gap = simulation_gap(program, simulation, [x])
    assert gap.largest <= 1
    assert gap.differing <= 1 + gap.compared / 1000  # of a few thousand codes
    for site in ("0.weight", "3.weight"):
        quantizer, real = simulation.quantizer(site), simulation.model.tensor(site).detach()
        codes = quantizer.integers(real.numpy())
        assert np.array_equal(codes.dequantize(), quantizer(real).detach().numpy())
        if integers is None:  # nothing was rounded: the numbers are the format's own
            np.testing.assert_allclose(codes.dequantize(), quantizer.encoding.encode(real.numpy()).dequantize(),
                                       rtol=1e-6)


def test_some_formats_are_multiples_of_one_step():
    assert {"ternary", "binary", "sm8", "e2m1"} <= set(EXACT)
    assert "nf4" not in EXACT


def test_an_unknown_format_is_one_sentence():
    with pytest.raises((RecipeError, ValueError), match="float99"):
        Recipe.model_validate({"version": 1, "weights": {"format": "float99"}, "activations": {"format": "uint8"}})


@pytest.mark.parametrize("rule", ["mse", "kl", "isotone"])
def test_rules_of_even_grids_refuse_other_formats(rule):
    with pytest.raises(EncodingError, match="evenly spaced"):
        simulated({"format": "nf4", "block": "tensor", "range": rule}, {"format": "uint8"})


def test_choosing_a_rounding_needs_integers():
    _, x, simulation = simulated({"format": "nf4"}, {"format": "uint8"})
    with pytest.raises(RepairError, match="among integers only"):
        adaround(simulation, [x])


@pytest.mark.parametrize("rule", RULES)
def test_a_rounding_by_name(rule):
    """Weights encode by it, offline; activations of a program round half to even, and others are refused by name."""
    line = {"format": "int8", "rounding": rule, "block": "tensor"}
    _, x, simulation = simulated(line, {"format": "uint8"})
    quantizer, weight = simulation.quantizer("0.weight"), simulation.model.tensor("0.weight").detach()
    expected = RULES[rule](weight.numpy() / quantizer.encoding.scale).clip(-128, 127)
    assert np.array_equal(quantizer.integers(weight.numpy()).codes, expected)
    assert np.array_equal(quantizer(weight).detach().numpy(), quantizer.integers(weight.numpy()).dequantize())
    assert not differences(lower(simulation), {"input": x.numpy()})
    _, x, simulation = simulated({"format": "int8"}, {"format": "uint8", "rounding": rule})
    if rule != "half_even":
        with pytest.raises(LoweringError, match=f"rounds {rule}"):
            lower(simulation)


def test_roundings_that_are_none():
    with pytest.raises((RecipeError, ValueError), match="half_way"):
        simulated({"format": "int8", "rounding": "half_way"}, {"format": "uint8"})
    with pytest.raises(EncodingError, match="nf4 has thresholds of its own"):
        simulated({"format": "nf4", "rounding": "floor"}, {"format": "uint8"})

"""Every method and preset of training keeps its promises, and what it learned lowers."""

import re
import warnings
from pathlib import Path

import pytest
import torch
from quantizers import activation_quantizer, gradient, weight_quantizer

from fewbits.capture.capture import capture
from fewbits.errors import EncodingError, MethodWarning, RecipeError
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.presets import presets
from fewbits.quant.recipe import Recipe, recipe
from fewbits.testing import check_method
from fewbits.train.registry import ACTIVATIONS, WEIGHTS, trainable

LEARNING = [name for name in presets() if recipe(name).weights.method is not None]
FORMATS = {"binary-connect": "binary", "binary-connect-stochastic": "binary", "bwn": "binary", "twn": "ternary",
           "twn-0.75": "ternary", "twn-exact": "ternary", "ttq": "ternary", "dorefa": "int3", "lsq": "int4",
           "lsq-paper": "int4",
           "lab": "int8", "current": "int8", "codebook(5)": "int8", "codebook-refresh(5)": "int8",
           "codebook-linear(5)": "int8", "codebook-density(5)": "int8", "codebook-random(5,2)": "int8",
           "inq": "inq-4", "inq(0.3,1)": "inq-3", "qnn": "int3", "stochastic": "int4", "duq": "int4",
           "duq-paper": "int4", "lq(1)": "int8", "lq(2)": "int8", "lq(3)": "int8"}


@pytest.mark.filterwarnings("error::fewbits.errors.MethodWarning")
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LEARNING)
def test_presets(name):
    check_method(name)


def test_every_method_of_weights_is_tried():
    assert {method.partition("(")[0] for method in FORMATS} == set(WEIGHTS)


def written(weights, activations):
    return Recipe.model_validate({"version": 1, "weights": weights, "activations": activations,
                                  "inputs": {"format": "uint8", "method": "none"}})


@pytest.mark.parametrize("method", FORMATS)
def test_methods_of_weights(method):
    check_method(written({"format": FORMATS[method], "block": "tensor", "method": method}, {"format": "uint8"}))


@pytest.mark.parametrize("method", [*ACTIVATIONS, "dorefa(6)", "moving(0.9, 1)", "log(5)", "duq(0.375)",
                                    "duq-paper(0.375)"])
def test_methods_of_activations(method):
    activations = ({"format": "hwgq2", "symmetric": True, "scale": "unit"} if method.startswith("hwgq")
                   else {"format": "table(0,1,2,3,4,5,6,7)", "symmetric": True, "integers": "int8"} if method == "lq"
                   else {"format": "uint4"})
    inputs = {"format": "uint8", "symmetric": False, "scale": "restricted", "method": "none"}
    check_method(Recipe.model_validate({"version": 1, "weights": {"format": "int8", "method": "current"},
                                        "activations": activations | {"method": method}, "inputs": inputs}))


def simulated(weights, activations):
    net, x = torch.nn.Linear(4, 3), torch.randn(8, 4)
    model = capture(net, x)
    return calibrate(model, plan(model, written(weights, activations)), [x])


@pytest.mark.parametrize(("weights", "activations", "word"), [
    ({"format": "int8", "method": "magic"}, {"format": "uint8"}, "no method 'magic': choose one of current"),
    ({"format": "int8", "method": "moving"}, {"format": "uint8"}, "no method 'moving'"),
    ({"format": "int8", "method": "lsq(3)"}, {"format": "uint8"}, "brackets"),
    ({"format": "int8", "method": "dorefa"}, {"format": "uint8"}, "1 to 7 bits"),
    ({"format": "int8", "method": "codebook"}, {"format": "uint8"}, "brackets"),
    ({"format": "int8", "method": "codebook(0)", "block": "tensor"}, {"format": "uint8"}, "1 to 256 centroids"),
    ({"format": "int8", "method": "codebook(4)", "block": [1, 2]}, {"format": "uint8"}, "serves a tensor"),
    ({"format": "inq-6", "method": "inq", "block": "tensor"}, {"format": "uint8"}, "inq-2, inq-3"),
    ({"format": "int4", "method": "inq", "block": "tensor"}, {"format": "uint8"}, "inq-2, inq-3"),
    ({"format": "inq-4", "method": "inq", "block": "channel"}, {"format": "uint8"}, "one scale per tensor"),
    ({"format": "inq-4", "method": "inq(0.5,0.4,1)", "block": "tensor"}, {"format": "uint8"}, "ascend"),
    ({"format": "inq-4", "method": "inq(0.5,0.9)", "block": "tensor"}, {"format": "uint8"}, "ascend"),
    ({"format": "uint4", "method": "qnn", "symmetric": False}, {"format": "uint8"}, "int2 to int8"),
    ({"format": "int4", "method": "stochastic", "symmetric": False}, {"format": "uint8"}, "symmetric"),
    ({"format": "nf4", "method": "lsq", "block": "tensor"}, {"format": "uint8"}, "between integers"),
    ({"format": "int8", "method": "lq(5)"}, {"format": "uint8"}, "1 to 4 numbers"),
    ({"format": "int8", "method": "lq(1.5)"}, {"format": "uint8"}, "1 to 4 numbers"),
    ({"format": "int8", "method": "lq"}, {"format": "uint8"}, "brackets"),
    ({"format": "int8", "method": "lq(2)", "block": [1, 2]}, {"format": "uint8"}, "serves a tensor"),
])
def test_what_does_not_fit_is_refused_by_name(weights, activations, word):
    with pytest.raises((RecipeError, EncodingError), match=word) as caught:
        trainable(simulated(weights, activations))
    assert "'weight'" in str(caught.value)


@pytest.mark.parametrize(("activations", "warned"), [
    ({"format": "uint4", "method": "lsq"}, True), ({"format": "uint4", "method": "lsq-paper"}, True),
    ({"format": "int4", "method": "lsq"}, False), ({"format": "uint4", "method": "lsq-plus"}, False)])
def test_steps_that_cut_off_negative_numbers_are_told(activations, warned):
    """The input spreads around 0; nothing but the formats and methods of its recipes differs."""
    net, x = torch.nn.Linear(4, 3), torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = capture(net, x)
    made = Recipe.model_validate({"version": 1, "weights": {"format": "int8", "method": "lsq"},
                                  "activations": activations | {"symmetric": False}})
    simulation = calibrate(model, plan(model, made), [x])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainable(simulation)
    told = [str(each.message) for each in caught if each.category is MethodWarning]
    assert [("reaches below 0" in text and "lsq-plus" in text) for text in told] == [True] * warned


# Gradients, each against its paper's formula written out on random numbers with the edges among them.

EDGES = torch.cat([torch.randn(50, generator=torch.Generator().manual_seed(0)) * 2,
                   torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, 100.0, -100.0])])


@pytest.mark.parametrize("method", ["binary-connect", "twn", "twn-0.75", "twn-exact"])
def test_the_gradient_of_the_identity(method):
    quantizer = weight_quantizer(method, FORMATS[method], EDGES)
    _, got = gradient(quantizer, EDGES, 0.3)
    assert torch.equal(got, torch.full_like(EDGES, 0.3))


def test_the_gradient_of_binary_weights():
    quantizer = weight_quantizer("bwn", "binary", EDGES)
    _, got = gradient(quantizer, EDGES, 0.3)
    alpha = EDGES.abs().mean()
    torch.testing.assert_close(got, 0.3 * (1 / len(EDGES) + alpha * (EDGES.abs() <= 1).float()))


@pytest.mark.parametrize("bits", [2, 4])
def test_the_gradient_of_dorefa_weights(bits):
    """Automatic differentiation of the smooth part, the rounding taken for the identity."""
    quantizer = weight_quantizer("dorefa", f"int{bits}", EDGES)
    _, got = gradient(quantizer, EDGES)
    _, expected = gradient(lambda w: w.tanh() / w.tanh().abs().max(), EDGES)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_learned_steps():
    """d/dv is 1 strictly inside the range, d/ds is rint(v/s) − v/s there and the bound outside, over √(N Q_p)."""
    quantizer = activation_quantizer("lsq", "int3")
    quantizer.started.fill_(True)
    quantizer.begin(torch.tensor(0.5), torch.tensor(0.5))
    x = EDGES[None]
    _, got = gradient(quantizer, x)
    v = x / 0.5
    assert torch.equal(got, ((v > -4) & (v < 3)).float())
    of_step = torch.where(v <= -4, -4.0, torch.where(v >= 3, 3.0, v.round() - v)).sum()
    torch.testing.assert_close(0.5 * quantizer.factor.grad, of_step / (len(EDGES) * 3) ** 0.5)


def test_the_gradient_of_clipping():
    quantizer = activation_quantizer("pact", "uint4")
    with torch.no_grad():
        quantizer.bound.fill_(1.5)
    _, got = gradient(quantizer, EDGES)
    assert torch.equal(got, ((EDGES >= 0) & (EDGES < 1.5)).float())
    assert quantizer.bound.grad.item() == (EDGES >= 1.5).sum()


def test_stochastic_signs_follow_their_probabilities():
    """2000 draws of each number: the mean is 2 p − 1 within 5 standard errors (false alarm 6e-7 a number)."""
    weight = torch.linspace(-1.2, 1.2, 9).repeat(2000, 1)
    quantizer = weight_quantizer("binary-connect-stochastic", "binary", weight)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean = quantizer(weight).detach().mean(0)
    p = ((weight[0] + 1) / 2).clamp(0, 1)
    assert ((mean - (2 * p - 1)).abs() <= 5 * 2 * (p * (1 - p) / 2000).sqrt() + 1e-6).all()
    quantizer.eval()
    assert torch.equal(quantizer(weight).detach(), torch.where(weight >= 0, 1.0, -1.0))


def test_the_exact_threshold_is_the_best_of_all():
    weight = torch.randn(40, generator=torch.Generator().manual_seed(1))
    quantizer = weight_quantizer("twn-exact", "ternary", weight)
    reached = (quantizer(weight).detach() - weight).double().square().sum()
    for delta in [0.0, *(weight.abs() * 0.999).tolist()]:
        kept = weight.abs() > delta
        alpha = weight.abs()[kept].mean()
        assert reached <= (alpha * weight.sign() * kept - weight).double().square().sum() + 1e-6


@pytest.mark.parametrize("method", ["lsq", "lsq-plus", "pact"])
@pytest.mark.parametrize("moved", [0.3, -100.0])
def test_the_grid_is_that_of_the_last_step(method, moved):
    """What is lowered right after an update of the parameters is what would be simulated."""
    quantizer = activation_quantizer(method, "uint4")
    quantizer(EDGES[None])
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter += moved
    lowered = quantizer.encoding
    quantizer.eval()
    quantizer(EDGES[None])
    simulated = quantizer.encoding
    assert lowered.scale == simulated.scale > 0
    assert lowered.zero_point == simulated.zero_point


def test_a_moving_range_waits_and_then_follows():
    quantizer = activation_quantizer("moving", "uint8", 0.5, 1)
    x = torch.tensor([[0.0, 1.0, 0.3337]])
    assert torch.equal(quantizer(x), x), "the first step is not quantized"
    quantizer(2 * x)
    torch.testing.assert_close(quantizer.scale, torch.tensor(1.5 / 255))
    quantizer.eval()
    quantizer(5 * x)
    torch.testing.assert_close(quantizer.scale, torch.tensor(1.5 / 255))


def test_the_page_on_training_names_every_method_and_preset():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    learned = [name for name in presets() if (wanted := recipe(name)).weight_spec is not None
               and wanted.weight_spec.method is not None]
    assert len(learned) > 10
    missing = [name for name in [*WEIGHTS, *ACTIVATIONS, *learned] if not re.search(rf"`{re.escape(name)}[(`]", page)]
    assert not missing

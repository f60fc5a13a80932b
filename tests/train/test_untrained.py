"""Recipes whose methods learn, in the verbs that train nothing: the promised number of values, or a refusal by name."""

import warnings

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.errors import LoweringError, MethodWarning, RecipeError
from fewbits.quant.presets import presets
from fewbits.quant.recipe import recipe
from fewbits.quant.spec import CALIBRATED_METHODS
from fewbits.ranges.kmeans import optimal
from fewbits.train.registry import ACTIVATIONS, WEIGHTS
from fewbits.train.untrained import DATA_FREE


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 64), nn.ReLU(),
                         nn.Linear(64, 10)).eval()


X = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "count"), [("kmeans-w2a8", 4), ("kmeans-w3a8", 8), ("kmeans-w4a8", 16)])
def test_a_codebook_has_the_values_its_recipe_promises(name, count):
    net = network()
    with pytest.warns(MethodWarning, match=rf"codebook\({count}\) of 3 weights learns in training"):
        program = fb.quantize(net, X, [X], recipe=name)
    layers = [node for node in program.program.nodes if hasattr(node, "weight")]
    assert len(layers) == 3
    for node in layers:
        assert len(set(node.weight.codes.ravel().tolist())) <= count
    weight = net[6].weight.detach().double().numpy().ravel()
    wanted = optimal(weight, count).centroids
    last = layers[-1].weight
    got = sorted(set((last.codes.astype(float) * last.encoding.scale).ravel().tolist()))
    step = float(last.encoding.scale.max())
    assert len(got) == len(wanted)
    assert all(abs(a - b) <= 0.51 * step for a, b in zip(got, sorted(wanted), strict=True))


@pytest.mark.parametrize("name", [name for name in presets() if {
    wish.method.partition("(")[0] for rule in (recipe(name), *recipe(name).rules)
    for wish in (rule.weights, rule.activations, rule.inputs) if not isinstance(wish, str | None) and wish.method}
    - {*CALIBRATED_METHODS, *DATA_FREE, "none"}])
def test_other_methods_are_refused_by_name_before_anything_runs(name):
    with pytest.raises(RecipeError, match=rf"recipe {name} has '.*' learn by [a-z0-9.-]+, which needs training"):
        fb.quantize(network(), X, [torch.full_like(X, torch.nan)], recipe=name)


def test_methods_that_begin_where_calibration_ends_are_taken():
    with warnings.catch_warnings():
        warnings.simplefilter("error", MethodWarning)
        fb.quantize(network(), X, [X], recipe="qat-w8a8")


def test_lowering_refuses_what_never_learned():
    model = fb.fold(fb.capture(network(), X[:2]))
    with pytest.raises(LoweringError, match=r"has '.*' learn by lsq, and it has not: call fb\.trainable"):
        fb.lower(fb.calibrate(model, fb.plan(model, "lsq-w4a4"), [X]))


def test_the_lists_name_methods_that_there_are():
    assert {*CALIBRATED_METHODS} <= {*WEIGHTS, *ACTIVATIONS}
    assert {*DATA_FREE} <= {*WEIGHTS}

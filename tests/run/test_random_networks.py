"""0 differing codes among the reference, torch and onnxruntime, over random networks of every operator."""

from collections import Counter

import pytest

from fewbits.graph.capture import capture
from fewbits.graph.fold import fold
from fewbits.lower.lower import lower
from fewbits.program import nodes as op
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import plan
from fewbits.quant.recipe import Recipe
from fewbits.testing import differences, random_network

UNEVEN = Recipe.model_validate({
    "version": 1, "weights": {"format": "ternary"}, "activations": {"format": "uint8"},
    "rules": [{"op": "conv", "activations": {"format": "ternary"}, "optional": True},
              {"op": "linear", "activations": {"format": "binary"}, "optional": True}]})
BINARY = Recipe.model_validate({
    "version": 1, "weights": {"format": "binary", "block": "tensor"}, "activations": {"format": "uint8"},
    "rules": [{"op": op, "activations": {"format": format, "scale": "unit"}, "optional": True}
              for op, format in (("conv", "binary"), ("batch_norm", "binary"), ("linear", "ternary"),
                                 ("function", "e2m1"))]})
VARIANTS = (("w8a8", "onnxruntime", "fold"), ("w8a8-per-tensor", "onnxruntime", "fold"),
            ("w7a8", "onnxruntime-portable", "fold"), ("w4a8", "onnxruntime", "fold"), (UNEVEN, "onnxruntime", "fold"),
            ("w8a8-per-tensor", "onnxruntime", "keep"), (UNEVEN, "onnxruntime", "keep"),
            (BINARY, "onnxruntime", "keep"))
NETWORKS, PER_TEST = 240, 20


def program(seed):
    net, example = random_network(seed)
    recipe, profile, norms = VARIANTS[seed % len(VARIANTS)]
    model = fold(capture(net, example), norms=norms)
    # Calibrated on less than is run, so that codes saturate too.
    return lower(calibrate(model, plan(model, recipe), [example / 1.3]), profile), example


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("first", range(0, NETWORKS, PER_TEST))
def test_no_code_differs(first):
    for seed in range(first, first + PER_TEST):
        made, example = program(seed)
        found = differences(made, {made.inputs[0]: example.numpy()})
        assert not found, f"network {seed}: {'; '.join(map(str, found))}\n{made}"


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_the_networks_cover_every_node():
    made = [program(seed)[0] for seed in range(50)]
    counts = Counter(type(node) for item in made for node in item.nodes)
    others = {op.Embedding,  # its inputs are row numbers: test_operators.py
              op.Dequantize, op.FloatConstant, op.FloatCall, op.DynamicConv, op.DynamicLinear}  # test_islands.py
    assert set(counts) == set(op.Node.__args__) - others

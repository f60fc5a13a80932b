"""Random networks under every profile: no code differs, and what has no definition is refused by name."""

import re

import pytest

from fewbits.capture.capture import capture
from fewbits.errors import LoweringError, VerificationError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program import reference
from fewbits.program.ops import accumulator_bound
from fewbits.program.profile import profile
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe, recipe
from fewbits.testing import differences, random_network
from fewbits.writers.onnx.program import onnx_bytes

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def simulation(seed: int, chosen: str | Recipe):
    net, example = random_network(seed)
    model = fold(capture(net, example))
    return calibrate(model, plan(model, chosen), [example / 1.3]), example.numpy()


def lowered(simulated, name: str) -> Program | None:
    """None where the profile has no definition of the network."""
    try:
        return lower(simulated, name)
    except LoweringError as error:
        if not re.search("has no definition of|needs sums of", str(error)):
            raise
        return None


# Seeds 300 to 317, and how many of them the profile has definitions for.
@pytest.mark.parametrize(("name", "defined"), [
    ("tensorrt", 18), ("gemmlowp", 4), ("litert", 4), ("litert-single-rounding", 4), ("litert-int16", 2),
    ("cmsis-nn", 2), ("onnxruntime/sums16-split", 16), ("litert/sums24", 4),
])
def test_no_code_differs(name, defined):
    found = 0
    for seed in range(300, 318):
        simulated, x = simulation(seed, profile(name).recipe)
        program = lowered(simulated, name)
        if program is None:
            continue
        found += 1
        wrong = differences(program, {program.inputs[0]: x})
        assert not wrong, f"network {seed} under {name}: {wrong[0]}\n{program}"
    assert found == defined


def asymmetric(block: str, weights: str = "int8", activations: str = "uint8") -> Recipe:
    return Recipe.model_validate({
        "version": 1, "weights": {"format": weights, "symmetric": False, "block": block},
        "activations": {"format": activations, "symmetric": False, "block": "tensor"}})


@pytest.mark.parametrize(("name", "block", "weights", "activations"), [
    ("onnxruntime", "channel", "int8", "uint8"), ("onnxruntime", "tensor", "int8", "uint8"),
    ("onnxruntime-portable", "channel", "int7", "uint8"), ("gemmlowp", "tensor", "int8-narrow", "int8"),
])
def test_weights_with_zero_points(name, block, weights, activations):
    seen = 0
    for seed in range(302, 318):
        simulated, x = simulation(seed, asymmetric(block, weights, activations))
        program = lowered(simulated, name)
        if program is None:
            continue
        seen += sum(bool(node.weight.encoding.zero_point.any()) for node in program.dot_products)
        wrong = differences(program, {program.inputs[0]: x})
        assert not wrong, f"network {seed}: {wrong[0]}\n{program}"
    assert seen >= 3


def test_split_sums_are_the_same_integers():
    seen = 0
    for seed in range(300, 308):
        simulated, x = simulation(seed, "w4a8")
        whole, split = lower(simulated), lowered(simulated, "onnxruntime/sums14-split")
        if split is None:
            continue
        seen += sum(accumulator_bound(split, node).bits > 14 for node in split.dot_products)
        names, given = [node.name for node in whole.nodes], {whole.inputs[0]: x[:1]}
        expected, made = (reference.run(program, given, names) for program in (whole, split))
        assert all((expected[name] == made[name]).all() for name in names)
    assert seen >= 3


@pytest.mark.parametrize(("chosen", "name", "told"), [
    ("w8a8", "tensorrt", "has uint8 activations.*, but profile tensorrt takes symmetric signed ones of at most 8 bits: "
                         "use recipe w8a8-symmetric"),
    ("w8a8", "litert", "profile litert takes signed ones of at most 8 bits: use recipe w8a8-signed"),
    ("w8a16", "onnxruntime", "profile onnxruntime takes unsigned ones of at most 8 bits: use recipe w8a8"),
    ("w8a16", "tensorrt", "has int16 activations, but profile tensorrt takes symmetric signed ones of at most 8 bits"),
    (asymmetric("channel", "int8-narrow", "int8"), "gemmlowp", "has a zero point per channel, but profile gemmlowp "
                                                               "takes one per tensor: use `block: tensor`"),
    (asymmetric("tensor", "int8-narrow", "int8"), "litert", "has a zero point, which profile litert does not take"),
])
def test_what_a_profile_does_not_take(chosen, name, told):
    simulated, _ = simulation(311, chosen)
    with pytest.raises(LoweringError, match=told):
        lower(simulated, name)


def test_every_node_without_definition_is_told_at_once():
    refused = []
    for seed in range(300, 312):
        try:
            lower(simulation(seed, "w8a16")[0], "litert-int16")
        except LoweringError as error:
            refused.append(str(error))
    assert any("softmax ('" in text and "function of one number ('" in text for text in refused)


def test_what_no_engine_computes_is_not_exported():
    made = (lowered(simulation(seed, "w8a8-signed")[0], "gemmlowp") for seed in range(300, 310))
    program = next(program for program in made if program is not None)
    with pytest.raises(VerificationError, match="profile gemmlowp rounds in integers as no ONNX operator does: lower "):
        onnx_bytes(program)


@pytest.mark.parametrize("name", ["w8a8-signed", "w8a8-symmetric", "w8a16"])
def test_presets_read(name):
    assert recipe(name).activation_spec.format.signed

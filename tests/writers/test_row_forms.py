"""Softmax and layer norm in ONNX Runtime give the codes of the reference, at every length that they treat otherwise."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.engines.onnx_session import OnnxSession
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import parse
from fewbits.program import reference
from fewbits.program.examples import as_program
from fewbits.program.functions import EMPTY
from fewbits.program.ops import LayerNorm, LogSoftmax, Softmax
from fewbits.program.ops.record import Example
from fewbits.program.requantize import exponentials
from fewbits.program.value import Value
from fewbits.writers.onnx.program import onnx_bytes

SHARES = Encoding(parse("uint8"), 1 / 256, 0)


def differing(node, x: Encoding, y: Encoding, codes: np.ndarray, seen: np.ndarray | None = None) -> int:
    """Codes of a node that differ from the reference's, in both forms, at both levels. codes: [N, ...]."""
    reads = {"x": Value((None, *codes.shape[1:]), x)}
    if seen is not None:
        reads["m"] = Value((None, *seen.shape[1:]), None, "bool")
    program, _ = as_program(Example(node, reads, Value((None, *codes.shape[1:]), y)))
    inputs = {"x.real": x.decode(codes)} | ({} if seen is None else {"m": seen})
    wanted = reference.run(program, inputs)["y"]
    return sum(int((OnnxSession(onnx_bytes(program, form, every_code=True), level, 1).run(inputs)["y"] != wanted).sum())
               for form in ("integer", "qdq") for level in ("off", "all"))


def rows(random: np.random.Generator, length: int, low: int, high: int) -> np.ndarray:
    """[2, 12, length]: spread widely and narrowly, all alike, at the ends, alternating between them."""
    middle, width = random.integers(low, high + 1, (24, 1)), random.uniform(0.3, 90, (24, 1))
    codes = np.rint(middle + width * random.normal(size=(24, length))).clip(low, high)
    codes[0], codes[1], codes[2] = low, high, random.integers(low, high + 1)
    codes[3] = np.where(np.arange(length) % 2, low, high)
    codes[4] = random.integers(low, high + 1, length)
    return codes.astype(np.int64).reshape(2, 12, length)


@pytest.mark.parametrize("length", [1, 5, 16, 17, 24, 48, 49, 64, 197, 256, 2047])
@pytest.mark.parametrize("format", ["uint8", "int8"])
def test_softmax_of_every_length(length, format):
    random, low = np.random.default_rng(length), parse(format).low
    for scale in (0.004, 0.05, 0.6):
        x = Encoding(parse(format), scale, random.integers(0, 256) + low)
        assert differing(Softmax("y", "x", None, 1.0, 0, 255), x, SHARES, rows(random, length, low, low + 255)) == 0


@pytest.mark.parametrize("length", [16, 17, 64, 197, 1000, 2047])
def test_the_sum_of_a_softmax_is_rounded_once(length):
    """Codes of 8 bits hardly show a sum that is rounded on the way, so it is looked at."""
    random, x = np.random.default_rng(length), Encoding(parse("uint8"), 0.002, 0)
    codes = random.integers(0, 256, (2, 12, length))
    reads, writes = {"x": Value((None, 12, length), x)}, Value((None, 12, length), SHARES)
    program, _ = as_program(Example(Softmax("y", "x", None, 1.0, 0, 255), reads, writes))
    model = onnx.load_from_string(onnx_bytes(program))
    model.graph.output.append(onnx.helper.make_tensor_value_info("y.total", onnx.TensorProto.FLOAT, None))
    powers = exponentials(x, 1.0)[codes.max(-1, keepdims=True) - codes].astype(np.int64)
    wanted = powers.sum(-1, keepdims=True).astype(np.float32)
    for level in ("off", "all"):
        found = OnnxSession(model.SerializeToString(), level, 1).run({"x.real": x.decode(codes)})["y.total"]
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("length", [1, 16, 49, 300, 2047])
@pytest.mark.parametrize("format", ["uint8", "int8"])
def test_log_softmax_of_every_length(length, format):
    random, low = np.random.default_rng(length), parse(format).low
    for scale in (0.004, 0.05, 0.6):
        x, y = Encoding(parse(format), scale, 3), Encoding(parse("uint8"), 0.05, 255)
        assert differing(LogSoftmax("y", "x", 0, 255), x, y, rows(random, length, low, low + 255)) == 0


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 16, 32, 50]), st.sampled_from(EMPTY), st.booleans(),
       st.sampled_from(["uint8", "int8"]))
def test_masked_softmax(seed, length, empty, constant, format):
    """Masks of the node and of the program, rows among them in which nothing is seen; hidden codes above the seen."""
    random, low = np.random.default_rng(seed), parse(format).low
    x = Encoding(parse(format), np.float32(random.uniform(0.01, 0.3)), 0)
    codes, seen = rows(random, length, low, low + 255), random.integers(0, 2, (2, 12, length)).astype(bool)
    seen[:, 3] = False
    node = Softmax("y", "x", None, float(random.uniform(0.2, 1.5)), 0, 255, empty=empty)
    if constant:
        assert differing(replace(node, mask=seen[0].astype(np.uint8)), x, SHARES, codes) == 0
    else:
        assert differing(replace(node, seen="m"), x, SHARES, codes, seen) == 0


@pytest.mark.parametrize("length", [1, 2, 7, 258, 259, 1024, 1025, 4096, 33_000])
@pytest.mark.parametrize("format", ["uint8", "int8"])
@pytest.mark.parametrize("about", ["mean", "zero"])
def test_layer_norm_of_every_length(length, format, about):
    """Squares of codes fit float32 up to 258 of them, measured from the middle up to 1024; all fits up to 32 896."""
    random, low = np.random.default_rng(length), parse(format).low
    zero = random.integers(0, 256) + low
    x, y = Encoding(parse(format), 0.03, zero), Encoding(parse("uint8"), 0.02, 120)
    gain, shift = (random.normal(mean, 0.4, length).astype(np.float32) for mean in (1, 0))
    node = LayerNorm("y", "x", gain, shift if about == "mean" else 0 * shift, 1e-6, 0, 255, about=about)
    assert differing(node, x, y, rows(random, length, low, low + 255)) == 0


def test_group_norm():
    random = np.random.default_rng(0)
    x, y = Encoding(parse("uint8"), 0.03, 100), Encoding(parse("uint8"), 0.02, 120)
    gain, shift = (random.normal(mean, 0.4, (3, 5, 1)).astype(np.float32) for mean in (1, 0))
    codes = rows(random, 15 * 70, 0, 255).reshape(8, 3, 5, 210)
    assert differing(LayerNorm("y", "x", gain, shift, 1e-5, 3, 250, axes=2), x, y, codes) == 0

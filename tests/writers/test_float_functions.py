"""Functions of one number by float operators: that the kernels err no more than their rows say, and that the choice of
them, and what they then give, is right for every code."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.engines.onnx_session import OnnxSession
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import parse
from fewbits.program.examples import as_program
from fewbits.program.ops import Table
from fewbits.program.ops.record import Example
from fewbits.program.unary import BY_WORD
from fewbits.program.value import Value
from fewbits.writers.onnx.builder import MICROSOFT, OnnxBuilder
from fewbits.writers.onnx.float_functions import float_form
from fewbits.writers.onnx.program import onnx_bytes, output_name

WORDS = tuple(row.word for row in BY_WORD.values() if row.kernel is not None)
LEVELS = ("off", "all")


def computed(word: str, fused: bool, x: np.ndarray, level) -> np.ndarray:
    """What ONNX Runtime gives of the float function."""
    program, _ = tabulated(word, Encoding(parse("uint8"), 0.05, 128), Encoding(parse("uint8"), 0.05, 128))
    b, row = OnnxBuilder(program), BY_WORD[word]
    if fused:
        b.node(row.kernel.fused.operator, ["x.real"], "out", MICROSOFT, **row.kernel.fused.attributes)
    else:
        b.unary(row.form(row.arguments({})), "x.real", "out")
    session = OnnxSession(b"".join(b.model({"out": 1}, {"out": "x.real"})), level, 1)
    return session.run({"x.real": x.reshape(-1, 1)})["out"].ravel()


def tabulated(word: str, x: Encoding, y: Encoding, change=lambda table: table, **arguments: float):
    """A program of the function as a table, `change`d, and every code as its input."""
    codes = np.arange(x.format.low, x.format.high + 1)
    results = BY_WORD[word].call(torch.from_numpy(np.float64(x.scale) * (codes - int(x.zero_point))), **arguments)
    table = y.encode(results.numpy()).codes.reshape(1, -1)
    shape = (None, 1)
    program, _ = as_program(Example(Table("y", "x", change(table), word), {"x": Value(shape, x)}, Value(shape, y)))
    return program, {"x.real": x.decode(codes).reshape(-1, 1)}


@pytest.mark.parametrize(("word", "fused"), [(word, fused) for word in WORDS for fused in (False, True)
                                             if not fused or BY_WORD[word].kernel.fused is not None])
def test_kernels_err_no_more_than_their_rows_say(word, fused):
    random = np.random.default_rng(0)
    row = BY_WORD[word]
    for limit in (1e-6, 1e-2, 1.0, 6.0, 20.0, 300.0):
        x = np.append(random.uniform(-limit, limit, 50_000), np.linspace(-limit, limit, 20_003)).astype(np.float32)
        exact = row.call(torch.from_numpy(x.astype(np.float64))).numpy()
        bound = row.kernel.absolute + row.kernel.relative * np.abs(x.astype(np.float64))
        for level in LEVELS:
            assert (np.abs(computed(word, fused, x, level) - exact) <= bound).all()
            for count in (1, 3, 17):  # tails are computed by other code
                assert (np.abs(computed(word, fused, x[:count], level) - exact[:count]) <= bound[:count]).all()


def test_slopes_are_those_of_their_rows():
    x = np.linspace(-12, 12, 200_001)
    for word in WORDS:
        results = BY_WORD[word].call(torch.from_numpy(x)).numpy()
        assert np.abs(np.diff(results)).max() / (x[1] - x[0]) <= BY_WORD[word].kernel.slope + 1e-6, word


def assert_every_code(program, inputs) -> None:
    """Both forms give the table, the integer form also with optimisation off."""
    node = next(node for node in program.nodes if isinstance(node, Table))
    wanted = node.table[0]
    for form, level in (("integer", "off"), ("integer", "all"), ("qdq", "all")):
        found = OnnxSession(onnx_bytes(program, form, every_code=True), level, 1).run(inputs)
        assert np.array_equal(found["y"].ravel(), wanted), f"{form}, {level}"
        assert np.array_equal(found[output_name("y")].ravel(), program.encoding("y").decode(wanted))


@settings(max_examples=12)
@given(st.sampled_from(WORDS), st.floats(-7, 0.5), st.floats(-7, 0.5), st.sampled_from(("uint8", "int8")),
       st.integers(0, 255), st.integers(0, 255))
def test_every_code_of_random_grids(word, x_scale, y_scale, format, x_zero, y_zero):
    low = parse(format).low
    x, y = (Encoding(parse(format), np.float32(np.exp(scale)), zero + low)
            for scale, zero in ((x_scale, x_zero), (y_scale, y_zero)))
    assert_every_code(*tabulated(word, x, y))


@pytest.mark.parametrize("word", WORDS)
def test_nearly_all_tables_have_a_float_form(word):
    """Of common grids: the numbers near a tie are moved off it."""
    random, found = np.random.default_rng(1), 0
    for _ in range(40):
        x, y = (Encoding(parse("uint8"), np.float32(random.uniform(0.01, 0.06)), random.integers(0, 200))
                for _ in range(2))
        program, _ = tabulated(word, x, y)
        found += float_form(OnnxBuilder(program), program.nodes[-1]) is not None
    assert found >= 36


@pytest.mark.parametrize("slope", [0.01, 0.1, 0.25, 0.7])
def test_leaky_relu_of_a_slope_that_the_table_does_not_name(slope):
    x, y = Encoding(parse("uint8"), 0.031, 140), Encoding(parse("uint8"), 0.027, 33)
    program, inputs = tabulated("leaky_relu", x, y, negative_slope=slope)
    assert float_form(OnnxBuilder(program), program.nodes[-1]) is not None
    assert_every_code(program, inputs)


@pytest.mark.parametrize("word", WORDS)
def test_another_table_under_the_same_word_is_looked_up(word):
    """One code that the function does not give, or bounds that are not the type's."""
    x, y = Encoding(parse("uint8"), 0.043, 120), Encoding(parse("uint8"), 0.041, 30)

    def otherwise(table):
        return np.where(np.arange(256) == 77, table ^ 1, table)

    def bounded(table):
        assert table.max() > 40
        return table.clip(0, 40)

    for change, found in ((lambda table: table, True), (otherwise, False), (bounded, False)):
        program, inputs = tabulated(word, x, y, change)
        assert (float_form(OnnxBuilder(program), program.nodes[-1]) is not None) is found
        assert_every_code(program, inputs)


def test_ties_are_looked_up():
    """Slope 1/2 between grids of one scale: half of the numbers below 0 lie on a tie."""
    grid = Encoding(parse("uint8"), 0.5, 128)
    program, inputs = tabulated("leaky_relu", grid, grid, negative_slope=0.5)
    assert float_form(OnnxBuilder(program), program.nodes[-1]) is None
    assert_every_code(program, inputs)

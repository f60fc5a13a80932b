"""Encodings of every format: bad input, any strides, nested scales, memory and speed."""

import time
import tracemalloc
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import EncodingError
from fewbits.numerics import affine
from fewbits.numerics.block import CHANNEL, TENSOR, Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int, parse
from fewbits.numerics.pieces import pieces
from fewbits.numerics.rounding import RULES, half_away, stochastic

SOME = ("int8", "uint4", "int8-narrow", "int1", "sm8", "bf16", "e4m3", "e5m2", "e2m1", "nf4", "ternary", "pow2-4",
        "hwgq2", "tf32")
BLOCKS = (TENSOR, CHANNEL, Block((1, 8)), Block((-1, 1)), Block((2, 4, 1)))


def data(shape=(4, 16, 3), kind=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(kind)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_blocks_are_scaled_one_by_one(name, block):
    x = data()
    shape = block.scale_shape(x.shape)
    scale = np.random.default_rng(1).uniform(0.1, 2, shape).astype(np.float32)
    encoding = Encoding(parse(name), scale, 0, block)
    quantized = encoding.encode(x)
    spread = np.broadcast_to(block.expand(scale, x.shape), x.shape)
    for place in np.ndindex(x.shape):
        one = Encoding(parse(name), spread[place]).encode(x[place])
        assert one.codes == quantized.codes[place]
        assert one.dequantize() == quantized.dequantize()[place]
    assert torch.equal(encoding.nearest(torch.from_numpy(x)), torch.from_numpy(quantized.dequantize()))


@pytest.mark.parametrize("zero_point", [0, 3, -128, 127])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_integers_are_encoded_as_equation_one_says(zero_point, kind):
    x = np.concatenate([data((40, 1000), kind).ravel() * kind(3), np.array([np.nan, np.inf, -np.inf, 1e4], kind)])
    encoding = Encoding(Int(8), 0.03, zero_point)
    with np.errstate(over="ignore"):
        wide = x.astype(np.result_type(kind, np.float32))
        expected = affine.encode(wide, encoding.scale, encoding.zero_point, -128, 127).astype(np.int8)
    assert np.array_equal(encoding.encode(x).codes, expected)


@pytest.mark.parametrize("name", SOME)
def test_any_strides_and_types_give_the_same_codes(name):
    encoding = Encoding(parse(name), 0.25)
    x = data((6, 10, 8))
    expected = encoding.encode(x).codes
    assert np.array_equal(encoding.encode(x.transpose(2, 0, 1)).codes, expected.transpose(2, 0, 1))
    assert np.array_equal(encoding.encode(x[::2, ::-3]).codes, expected[::2, ::-3])
    assert np.array_equal(encoding.encode(np.asfortranarray(x)).codes, expected)
    assert np.array_equal(encoding.encode(x.astype(np.float64)).codes, expected)  # 0.25 divides exactly
    frozen = x.copy()
    frozen.flags.writeable = False
    assert np.array_equal(encoding.encode(frozen).codes, expected)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0, 2), (), (1,)])
def test_empty_and_single(name, shape):
    encoding = Encoding(parse(name), 1.0)
    quantized = encoding.encode(np.zeros(shape, np.float32))
    assert quantized.codes.shape == quantized.dequantize().shape == shape
    channel = Encoding(parse(name), np.ones(CHANNEL.scale_shape(shape or (1,))), 0, CHANNEL)
    assert channel.encode(np.zeros(shape or (1,), np.float32)).codes.shape == (shape or (1,))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, [1.0, 0.0]])
def test_scales_that_are_refused(scale):
    block = TENSOR if np.ndim(scale) == 0 else CHANNEL
    for name in SOME:
        with pytest.raises(EncodingError, match="scale"):
            Encoding(parse(name), scale, 0, block)


@pytest.mark.parametrize("name", SOME)
def test_a_subnormal_scale_is_used_as_it_is(name):
    format = parse(name)
    encoding = Encoding(format, 1e-42)
    x = np.float32([0.0, 1e-42, 1.0, -1.0])
    with np.errstate(over="ignore"):
        steps = x / encoding.scale
    assert np.array_equal(encoding.encode(x).codes, format.encode(steps))


def test_only_integers_have_a_zero_point():
    for name in ("bf16", "nf4", "e4m3", "sm8"):
        with pytest.raises(EncodingError, match="no zero point"):
            Encoding(parse(name), 1.0, 1)


@pytest.mark.parametrize("bits", [0, 17, 24, 33, -1])
def test_widths_that_are_refused(bits):
    with pytest.raises(EncodingError):
        Int(bits)


def test_a_narrow_bit_is_refused():
    with pytest.raises(EncodingError, match="only 0"):
        parse("int1-narrow")
    assert parse("int1").values().tolist() == [-1, 0]
    assert parse("uint1").values().tolist() == [0, 1]


def test_codes_that_are_none_are_refused():
    for name, code in (("int4", 8), ("uint4", 16), ("ternary", 3), ("e2m1", 16), ("int8-narrow", -128)):
        with pytest.raises(EncodingError, match="codes"):
            Quantized(np.array([code]), Encoding(parse(name), 1.0))


@pytest.mark.parametrize("name", ["int8", "uint5", "e4m3", "bf16", "e2m1", "sm4"])
@given(x=st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=40), scale=st.floats(0.0009765625, 16, width=32))
def test_monotone_idempotent_and_within_half_a_step(name, x, scale):
    format = parse(name)
    encoding = Encoding(format, scale)
    real = np.sort(np.array(x, np.float32))
    got = encoding.encode(real).dequantize()
    assert (np.diff(got) >= 0).all()
    assert np.array_equal(encoding.encode(got).dequantize(), got)
    numbers = format.values().astype(np.float64) * np.float32(scale)
    inside = (real >= numbers[0]) & (real <= numbers[-1])
    for value, became in zip(real[inside].astype(np.float64), got[inside].astype(np.float64), strict=True):
        place = np.searchsorted(numbers, value).clip(1, len(numbers) - 1)
        step = numbers[place] - numbers[place - 1]
        # half a step, and what a float32 division and a product may add
        assert abs(value - became) <= step / 2 + 2.0**-22 * max(abs(value), abs(became))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["int8", "uint8", "e4m3", "bf16"])
def test_other_rules_round_the_quotient(rule, name):
    encoding = Encoding(parse(name), 0.25, 3 if name == "int8" else 0)
    x = np.arange(-60, 60, dtype=np.float32) / 16
    got = encoding.encode(x, RULES[rule])
    if name in ("int8", "uint8"):
        expected = (RULES[rule](x / 0.25) + encoding.zero_point).clip(encoding.format.low, encoding.format.high)
        assert np.array_equal(got.codes, expected)
    else:
        assert np.array_equal(got.dequantize(), parse(name).nearest(x / np.float32(0.25), RULES[rule]) * 0.25)


def test_stochastic_rounding_of_an_encoding_is_unbiased_and_reproducible():
    """400 000 draws at 0.3 steps from a code: |z| < 5.5 fails by chance with probability 4e-8; seed fixed."""
    for name, low, step in (("int8", 1.0, 1.0), ("e4m3", 1.0, 0.125)):
        encoding = Encoding(parse(name), 0.5)
        x = np.full((400, 1000), 0.5 * (low + 0.3 * step), np.float32)
        first, second = (encoding.encode(x, partial(stochastic, generator=np.random.default_rng(7))) for _ in "ab")
        assert first == second
        up = (first.dequantize() > 0.5 * low).mean()
        assert abs(up - 0.3) < 5.5 * (0.3 * 0.7 / x.size) ** 0.5
        assert len(np.unique(first.codes)) == 2


def test_a_quantized_scale_is_kept_and_compared():
    scales = Encoding(parse("e8m0"), 1.0).encode(np.float32([0.5, 2.0]))
    encoding = Encoding(parse("e2m1"), scales, 0, Block((32,)))
    assert encoding.nested == scales
    assert encoding.scale.tolist() == [0.5, 2.0]
    quantized = encoding.encode(np.full(64, 2.0, np.float32))
    assert quantized.dequantize().tolist() == [2.0] * 64
    assert quantized.stored_bytes == 32 + 2 + 4
    assert encoding != Encoding(parse("e2m1"), [0.5, 2.0], 0, Block((32,)))


def test_an_encoding_holds_no_fraction():
    assert Encoding(parse("q4.4"), 2.0**-4).format == Int(8)


def test_pieces_cover_everything_once():
    for shape in ((), (0,), (7,), (3, 5), (2, 3, 1000), (1, 4096), (5, 0, 3)):
        seen = np.zeros(shape, int)
        for index in pieces(shape, 100):
            assert seen[index].size <= 100
            seen[index] += 1
        assert (seen == 1).all()


def test_threads_do_not_change_codes():
    x = data((3, 500_000))
    encoding = Encoding(parse("e4m3"), 0.01)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = encoding.encode(x)
    finally:
        torch.set_num_threads(before)
    assert two == encoding.encode(x)


@pytest.mark.parametrize("name", ["int8", "bf16", "e4m3", "e2m1", "nf4"])
@pytest.mark.parametrize("block", [TENSOR, Block((1, 128))], ids=str)
def test_memory_stays_below_twice_the_tensor(name, block):
    """Beside its input (1x) encoding needs at most as much again; 16M elements, as 64M takes 4 times."""
    x = np.ones((1024, 16384), np.float32)
    encoding = Encoding(parse(name), np.ones(block.scale_shape(x.shape)), 0, block)
    encoding.encode(x)  # fill the memories of tables first
    tracemalloc.start()
    encoding.encode(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= x.nbytes


def best(work, repeats=7):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["int8", "bf16", "e4m3", "e5m2"])
def test_speed_is_at_least_half_of_torch(name):
    """Alternating runs of both on one thread, 64M elements; the best of each."""
    x = np.random.default_rng(0).standard_normal(2**26, dtype=np.float32)
    tensor = torch.from_numpy(x)
    theirs = {"int8": lambda: torch.quantize_per_tensor(tensor, 0.03, 3, torch.qint8),
              "bf16": lambda: tensor.to(torch.bfloat16), "e4m3": lambda: tensor.to(torch.float8_e4m3fn),
              "e5m2": lambda: tensor.to(torch.float8_e5m2)}[name]
    encoding = Encoding(parse(name), 0.03, 3) if name == "int8" else Encoding(parse(name), 1.0)
    ratios = [best(theirs, 3) / best(lambda: encoding.encode(x), 3) for _ in range(4)]
    assert max(ratios) >= 0.5, ratios


def test_half_away_differs_from_half_even_only_on_ties():
    encoding = Encoding(Int(8), 1.0)
    x = np.float32([0.5, 1.5, 2.5, -0.5, 0.7])
    differs = encoding.encode(x).codes != encoding.encode(x, half_away).codes
    assert differs.tolist() == [True, False, True, True, False]


def test_scales_ascend_with_their_blocks():
    x = np.float32([[1, 2, 3, 4]])
    for smaller, larger in pairwise((1.0, 2.0, 4.0)):
        assert (Encoding(Int(8), smaller).encode(x).codes >= Encoding(Int(8), larger).encode(x).codes).all()

"""MX and NVFP4: the specification's own arithmetic, block by block, in plain Python."""

import math

import ml_dtypes
import numpy as np
import pytest

from fewbits.errors import EncodingError
from fewbits.numerics.block import Block
from fewbits.numerics.formats import parse
from fewbits.ranges.microscaling import mx, nvfp4

ELEMENTS = {"e4m3": (ml_dtypes.float8_e4m3fn, 448.0, 8), "e5m2": (ml_dtypes.float8_e5m2, 57344.0, 15),
            "e3m2": (ml_dtypes.float6_e3m2fn, 28.0, 4), "e2m3": (ml_dtypes.float6_e2m3fn, 7.5, 2),
            "e2m1": (ml_dtypes.float4_e2m1fn, 6.0, 2)}


def data():
    x = np.random.default_rng(0).standard_normal((6, 128)).astype(np.float32)
    x *= np.float32(10.0) ** np.random.default_rng(1).integers(-6, 6, (6, 1)).astype(np.float32)
    x[3] = 0
    return x


@pytest.mark.parametrize("name", ELEMENTS)
def test_mx_as_the_specification_computes_it(name):
    dtype, largest, top = ELEMENTS[name]
    x = data()
    got = mx(x, parse(name)).encode(x).dequantize().reshape(-1, 32)
    for block, ours in zip(x.reshape(-1, 32), got, strict=True):
        most = float(abs(block).max())
        scale = 2.0 ** (math.floor(math.log2(most)) - top) if most else 1.0
        theirs = (block / np.float32(scale)).clip(-largest, largest).astype(dtype).astype(np.float32) * scale
        assert np.array_equal(ours, theirs.astype(np.float32))


def test_mx_of_integers():
    x = data()
    got = mx(x, parse("int8")).encode(x).dequantize().reshape(-1, 32)
    for block, ours in zip(x.reshape(-1, 32), got, strict=True):
        most = float(abs(block).max())
        scale = 2.0 ** (math.floor(math.log2(most)) - 6) if most else 2.0**-6
        assert np.array_equal(ours, np.rint(block / scale).clip(-128, 127) * scale)


def test_mx_scales_are_codes_of_e8m0():
    encoding = mx(data(), parse("e2m1"))
    assert encoding.nested is not None
    assert str(encoding.nested.encoding.format) == "e8m0"
    assert (np.frexp(encoding.scale)[0] == 0.5).all()
    x = data()
    quantized = encoding.encode(x)
    assert quantized.stored_bytes == x.size // 2 + x.size // 32 + 4  # and the unit of the scales, a float32


def test_nvfp4_as_described():
    x = data()
    encoding = nvfp4(x)
    over_all = np.float32(abs(x).max() / (6.0 * 448.0))
    blocks = x.reshape(-1, 16)
    codes = (abs(blocks).max(1).astype(np.float64) / 6 / over_all).astype(np.float32).astype(ml_dtypes.float8_e4m3fn)
    scales = np.maximum(codes.astype(np.float32), np.float32(2.0**-9)) * over_all
    np.testing.assert_array_equal(encoding.scale.reshape(-1), scales)
    theirs = (blocks / scales[:, None]).astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * scales[:, None]
    np.testing.assert_array_equal(encoding.encode(x).dequantize().reshape(-1, 16), theirs)


def test_smaller_blocks_err_less():
    x = np.random.default_rng(0).standard_t(3, (64, 256)).astype(np.float32)

    def error(encoding):
        return float(np.square(encoding.encode(x).dequantize() - x).mean())

    assert error(nvfp4(x)) < error(mx(x, parse("e2m1"))) < error(mx(x, parse("e2m1"), Block((1,))))


def test_zeros_and_nothing():
    for make in (nvfp4, lambda x: mx(x, parse("e4m3"))):
        zeros = np.zeros((2, 32), np.float32)
        assert (make(zeros).encode(zeros).dequantize() == 0).all()
        empty = np.zeros((0, 32), np.float32)
        assert make(empty).encode(empty).dequantize().shape == (0, 32)


def test_what_blocks_refuse():
    with pytest.raises(EncodingError, match="finite"):
        mx(np.float32([np.nan] * 32), parse("e4m3"))
    with pytest.raises(EncodingError, match="divide"):
        nvfp4(np.ones((2, 17), np.float32))
    with pytest.raises(EncodingError, match="8 bits"):
        mx(np.ones(32, np.float32), parse("int4"))
    with pytest.raises(EncodingError, match="axes"):
        nvfp4(np.float32(1.0))

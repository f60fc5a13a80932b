"""What convolutions and linear layers must not do at any level, beside tests/kernels/test_calls.py."""

import numpy as np
import pytest

from fewbits.errors import KernelError
from fewbits.kernels import library, structs
from fewbits.kernels.calls import address, run
from fewbits.kernels.conv import Layer, pack
from fewbits.kernels.rescaling import Rescaling
from fewbits.testing.kernel_calls import codes, conv_case, rescaling, signed

NATIVE = library.levels()[1:]
pytestmark = pytest.mark.skipif(not NATIVE, reason="no native library: python -m fewbits.kernels.build")


@pytest.mark.parametrize("level", NATIVE)
def test_the_worst_pairs_of_products_do_not_saturate(level: library.Level) -> None:
    for weight in (127, -128):
        weights = np.full((19, 3, 3, 21), weight, np.int8)
        layer = Layer(weights, None, Rescaling(structs.SUMS, structs.S32), 0, margins=(1, 1, 1, 1))
        x = np.full((1, 7, 9, 21), 255, np.uint8)
        case = conv_case(layer, x)
        with library.use(level):
            found = case.run(1)
        np.testing.assert_array_equal(found, case.wanted)
        assert np.abs(found).max() == 255 * abs(weight) * 9 * 21


SHARED = {
    "rows, each with margins": ((96, 3, 3, 48), (1, 20, 23, 48), {}),
    "rows of several images": ((96, 3, 3, 48), (3, 19, 23, 48), {}),
    "images": ((40, 3, 3, 24), (8, 9, 11, 24), {}),
    "blocks of columns": ((208, 3, 3, 96), (1, 6, 7, 96), {}),
    "blocks of columns, several images": ((200, 3, 3, 96), (3, 5, 4, 96), {}),
    "groups": ((96, 3, 3, 8), (2, 5, 5, 64), {"groups": 8}),
    "rows of groups": ((64, 3, 3, 16), (1, 24, 21, 32), {"groups": 2}),
    "steps of two": ((64, 3, 3, 32), (1, 31, 30, 32), {"stride": (2, 2)}),
    "steps beyond the kernel": ((64, 2, 2, 32), (1, 47, 30, 32), {"stride": (3, 3)}),
    "kernels with holes": ((64, 3, 3, 32), (1, 30, 24, 32), {"dilation": (2, 2), "margins": (2, 2, 2, 2)}),
    "one channel each": ((64, 3, 3, 1), (1, 29, 24, 64), {"groups": 64}),
    "one channel each, several images": ((64, 3, 3, 1), (4, 9, 12, 64), {"groups": 64}),
    "a line": ((48, 1, 3, 32), (1, 1, 200, 32), {"margins": (0, 0, 1, 1)}),
    "one pixel": ((500, 1, 1, 256), (1, 1, 1, 256), {"margins": (0, 0, 0, 0)}),
    "pixels": ((48, 1, 1, 33), (1, 24, 24, 33), {"margins": (0, 0, 0, 0)}),
}
"""How threads may share a convolution: shape of its weights, of what it reads, and the rest of it."""


@pytest.mark.parametrize("wide", [False, True], ids=["uint8", "int16"])
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("level", NATIVE)
def test_threads_change_no_bit(level: library.Level, way: str, wide: bool) -> None:
    shape, read, more = SHARED[way]
    rng = np.random.default_rng(1)
    layer = Layer(signed(rng, *shape), None, rescaling(rng, shape[0], 1e5, (structs.FLOAT,)), 3,
                  **{"margins": (1, 1, 1, 1)} | more)
    x = codes(rng, *read)
    case = conv_case(layer, x.astype(np.int16) if wide else x, beyond=True)
    with library.use(level):
        for threads in (1, 2, 3, 8, 100):
            np.testing.assert_array_equal(case.run(threads), case.wanted)


def packed_kind(layer: Layer, shape: tuple[int, int, int, int]) -> int:
    """PackedKind of native/packed.h; 0 where nothing is packed."""
    call = layer.struct(shape)
    blob = pack(call)
    return 0 if blob is None else int(blob[4:8].view(np.int32)[0])


WINOGRAD = 4


@pytest.mark.parametrize("level", [level for level in NATIVE if level in ("avx2", "avxvnni")])
def test_winograd(level: library.Level) -> None:
    """Tiles that stick out, channels that do not fill vectors, every rescaling, several images, threads."""
    rng, chosen = np.random.default_rng(5), 0
    for number in range(40):
        batch, channels, outs = int(rng.integers(1, 4)), int(rng.integers(16, 120)), int(rng.integers(16, 90))
        height, width = (int(n) for n in rng.integers(6, 30, 2))
        top, bottom, left, right = (int(m) for m in rng.integers(0, 3, 4))
        made = rescaling(rng, outs, 128 * 70 * np.sqrt(9 * channels), wide=bool(rng.random() < 0.2))
        bias = rng.integers(-30000, 30000, outs).astype(np.int32) if rng.random() < 0.7 else None
        layer = Layer(signed(rng, outs, 3, 3, channels), bias, made, int(rng.integers(0, 256)),
                      margins=(top, bottom, left, right))
        x = codes(rng, batch, height, width, channels)
        case = conv_case(layer, x, beyond=bool(rng.random() < 0.5))
        with library.use(level):
            chosen += packed_kind(layer, x.shape) == WINOGRAD
            np.testing.assert_array_equal(case.run(1 + number % 3), case.wanted, err_msg=case.what)
    assert chosen >= 10


@pytest.mark.parametrize("level", [level for level in NATIVE if level in ("avx2", "avxvnni")])
@pytest.mark.parametrize("weight", [127, -128])
def test_winograd_is_taken_as_far_as_its_sums_are_exact(level: library.Level, weight: int) -> None:
    """Sums of 255 times the weights of a column below 2^25 are right, with the worst codes; one channel more is not."""
    rng = np.random.default_rng(6)
    most = (2**25 - 1) // (255 * 9 * abs(weight))
    for channels in (most, most + 1):
        weights = np.full((32, 3, 3, channels), weight, np.int8)
        weights[1::2] = rng.choice(np.array([127, -128], np.int8), weights[1::2].shape)
        layer = Layer(weights, None, Rescaling(structs.SUMS, structs.S32), 255, margins=(1, 1, 1, 1))
        x = np.full((1, 16, 16, channels), 255, np.uint8)
        x[:, ::3, 1::2] = rng.integers(0, 256, x[:, ::3, 1::2].shape)
        case = conv_case(layer, x)
        with library.use(level):
            assert (packed_kind(layer, x.shape) == WINOGRAD) == (channels == most)
            np.testing.assert_array_equal(case.run(1), case.wanted)


@pytest.mark.skipif("amx" not in NATIVE, reason="this processor has no AMX, or the system does not lend it")
def test_tiles() -> None:
    """Rows that do not fill tiles, steps that fill none or several, columns of one block to five, strides, several
    images, threads, every rescaling, factors above 1; each beside its definition."""
    rng = np.random.default_rng(7)
    for number in range(120):
        batch, channels, outs = int(rng.integers(1, 3)), int(rng.choice([1, 3, 16, 20, 64, 65, 68, 130, 200])), int(
            rng.integers(1, 81))
        kernel_h, kernel_w = (int(k) for k in rng.choice([1, 1, 2, 3], 2))
        height, width = int(rng.integers(kernel_h, 9)), int(rng.integers(max(kernel_w, 4), 45))
        stride, dilation = tuple(int(n) for n in rng.integers(1, 3, 2)), (1, int(rng.choice([1, 1, 2])))
        right = int(rng.integers(0, 3)) + (kernel_w - 1) * dilation[1]
        spread = 128 * 70 * np.sqrt(kernel_h * kernel_w * channels) / float(rng.choice([1, 1, 1e4]))
        made = rescaling(rng, outs, spread, wide=bool(rng.random() < 0.2))
        bias = rng.integers(-30000, 30000, outs).astype(np.int32) if rng.random() < 0.7 else None
        layer = Layer(signed(rng, outs, kernel_h, kernel_w, channels), bias, made, int(rng.integers(0, 256)), stride,
                      dilation, (int(rng.integers(0, 2)), 0, int(rng.integers(0, 2)), right))
        case = conv_case(layer, codes(rng, batch, height, width, channels), beyond=bool(rng.random() < 0.5))
        with library.use("amx"):
            np.testing.assert_array_equal(case.run(1 + number % 3), case.wanted, err_msg=case.what)


@pytest.mark.skipif("amx" not in NATIVE, reason="this processor has no AMX, or the system does not lend it")
def test_sums_of_tiles_are_those_of_32_bits() -> None:
    """A bias at the end of the range makes sums that leave 32 bits wrap at every level alike."""
    rng = np.random.default_rng(8)
    layer = Layer(np.full((33, 1, 1, 256), 127, np.int8), np.full(33, 2**31 - 1, np.int32), Rescaling(
        structs.SUMS, structs.S32), 0)
    x = codes(rng, 1, 1, 40, 256)
    wanted = (x.astype(np.int64).sum(-1) * 127 + 2**31 - 1).astype(np.uint32).astype(np.int32)
    for level in NATIVE:
        y = np.zeros((1, 1, 40, 33), np.int32)
        with library.use(level):
            call = layer.struct(x.shape)
            keep = pack(call)
            call.x, call.y = address(np.ascontiguousarray(x)), address(y)
            run(call)
        assert keep is not None or level == "portable"
        np.testing.assert_array_equal(y, np.broadcast_to(wanted[..., None], y.shape), err_msg=level)


def test_what_does_not_fit_is_refused() -> None:
    rng = np.random.default_rng(2)
    layer = Layer(signed(rng, 8, 3, 3, 4), None, Rescaling(structs.SUMS, structs.S32), 0)
    x, y = codes(rng, 1, 5, 5, 4), np.zeros(72, np.int32)

    def refused(**fields) -> str:
        call = layer.struct(x.shape)
        call.x, call.y = address(x), address(y)
        for name, value in fields.items():
            setattr(call, name, value)
        with pytest.raises(KernelError, match="refuse a Conv") as raised:
            run(call)
        return str(raised.value)

    assert "null" in refused(x=None)
    assert "null" in refused(weights=None)
    assert "size" in refused(height=0)
    assert "size" in refused(height=2**31 - 1, width=2**31 - 1, batch=2**31 - 1)
    assert "size" in refused(kernel_h=7)
    assert "size" in refused(groups=3)
    assert "size" in refused(top=-1)
    assert "kind or layout" in refused(x_type=9)
    assert "kind or layout" in refused(layout=7)
    assert "range" in refused(x_zero=256)
    assert "kind or layout" in refused(bias=address(y) + 1)
    call = layer.struct(x.shape)
    call.x, call.y = address(x), address(y)
    run(call)


@pytest.mark.skipif(len(NATIVE) < 2, reason="one level here")
def test_weights_of_another_level_are_refused() -> None:
    rng = np.random.default_rng(3)
    layer = Layer(signed(rng, 8, 1, 1, 4), None, Rescaling(structs.SUMS, structs.S32), 0)
    x, y = codes(rng, 1, 5, 5, 4), np.zeros(200, np.int32)
    call = layer.struct(x.shape)
    call.x, call.y = address(x), address(y)
    with library.use(NATIVE[-1]):
        blob = pack(call)
    assert blob is not None
    with library.use(NATIVE[0]), pytest.raises(KernelError, match="another level"):
        run(call)


@pytest.mark.parametrize("level", NATIVE)
def test_neighbouring_pixels_at_once_write_the_same(level: library.Level) -> None:
    """Every rescaling, a channel or all alike; steps, margins, a row that is not filled."""
    rng = np.random.default_rng(11)
    for number in range(24):
        pixels, step, wide = int(rng.choice([2, 3, 4])), int(rng.integers(1, 3)), int(rng.integers(1, 6))
        outs, channels, width = int(rng.integers(1, 22)), int(rng.integers(1, 5)), pixels * int(rng.integers(1, 9))
        left, size = int(rng.integers(0, 3)), (width - 1) * step + wide + int(rng.integers(0, step))
        bias = None if number % 3 else rng.integers(-999, 999, outs).astype(np.int32)
        layer = Layer(signed(rng, outs, 3, wide, channels), bias, rescaling(rng, outs, 3e4), 7, (1, step), (1, 1),
                      (1, 0, left, 0))
        x = codes(rng, 2, 5, size - left, channels)
        wanted, joined = conv_case(layer, x), conv_case(layer.joined(pixels), x)
        with library.use(level):
            found = joined.run(1 + number % 2)
        np.testing.assert_array_equal(found.reshape(wanted.wanted.shape), wanted.wanted)


@pytest.mark.skipif("amx" not in NATIVE, reason="no tiles here")
@pytest.mark.parametrize(("number", "bits"), [(2, 1), (3, 2), (4, 2), (5, 4), (16, 4), (17, 8)])
def test_weights_of_few_values_take_few_bits(number: int, bits: int) -> None:
    """64 channels fill all tiles: none is 0 beside these."""
    rng = np.random.default_rng(number)
    values = rng.permutation(np.arange(-128, 128))[:number].astype(np.int8)
    weights = rng.choice(values, (40, 3, 3, 64))
    weights.reshape(-1)[:number] = values
    layer = Layer(weights, None, rescaling(rng, 40, 1e5, (structs.FLOAT,)), 3, margins=(1, 1, 1, 1))
    with library.use("amx"):
        blob = pack(layer.struct((1, 8, 8, 64)), few=True)
    assert blob is not None
    assert 0 <= blob.nbytes - 48 * 9 * 64 * bits // 8 < 1024

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


@pytest.mark.parametrize("level", NATIVE)
def test_threads_change_no_bit(level: library.Level) -> None:
    rng = np.random.default_rng(1)
    layer = Layer(signed(rng, 96, 3, 3, 48), None, rescaling(rng, 96, 1e5, (structs.FLOAT,)), 3, margins=(1, 1, 1, 1))
    x = codes(rng, 2, 19, 23, 48)
    case = conv_case(layer, x, beyond=True)
    with library.use(level):
        for threads in (1, 2, 3, 8):
            np.testing.assert_array_equal(case.run(threads), case.wanted)


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

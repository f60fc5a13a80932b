"""What is no input of the functions of one tensor is refused in one sentence."""

import numpy as np
import pytest
import torch

import fewbits as fb
from fewbits.errors import EncodingError

X = fb.linear_quantize(torch.linspace(-1, 1, 50).reshape(1, 2, 5, 5), 8)
KERNEL = fb.linear_quantize(torch.linspace(-1, 1, 54).reshape(3, 2, 3, 3), 8, symmetric=True)


@pytest.mark.parametrize(("given", "words"), [
    ("abc", "no type of real numbers"), (None, "no type of real numbers"), ([1j], "no type of real numbers"),
    ([[1.0, 2.0], [3.0]], "unlike lengths"), ([], "no numbers")])
def test_what_is_no_tensor(given, words):
    for verb in (fb.linear_quantize, fb.scale_and_zero_point, fb.dynamic_fixed_point):
        with pytest.raises(EncodingError, match=words):
            verb(given, 4)


def test_bfloat16_is_taken():
    x = torch.tensor([0.5, -1.0, 0.25])
    assert np.array_equal(fb.linear_quantize(x.bfloat16(), 4).codes, fb.linear_quantize(x, 4).codes)


def test_a_zero_point_between_codes():
    with pytest.raises(EncodingError, match=r"whole number, not -1\.5"):
        fb.linear_quantize([1.0, 2.0], 4, scale=1.0, zero_point=-1.5)


def test_bits_between_whole_numbers():
    with pytest.raises(EncodingError, match=r"not 2\.5"):
        fb.linear_quantize([1.0, 2.0], 2.5)


@pytest.mark.parametrize(("options", "words"), [
    ({"stride": 0}, "at least 1"), ({"dilation": 0}, "at least 1"), ({"padding": -1}, "at least 0"),
    ({"dilation": 3}, "smaller than the kernel")])
def test_a_convolution_that_is_none(options, words):
    with pytest.raises(EncodingError, match=words):
        fb.quantized_conv2d(X, KERNEL, None, X.encoding, **options)


def test_a_bias_of_nan():
    with pytest.raises(EncodingError, match="bias holds NaN"):
        fb.quantized_conv2d(X, KERNEL, [0.0, float("nan"), 0.0], X.encoding)

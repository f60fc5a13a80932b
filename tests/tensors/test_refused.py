"""What is no input of the functions of one tensor is refused in one sentence."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.errors import CaptureError, EncodingError, FewbitsError, OptionError

X = fb.linear_quantize(torch.linspace(-1, 1, 50).reshape(1, 2, 5, 5), 8)
KERNEL = fb.linear_quantize(torch.linspace(-1, 1, 54).reshape(3, 2, 3, 3), 8, symmetric=True)


@pytest.mark.parametrize(("given", "words"), [
    ("abc", "no type of real numbers"), (None, "no type of real numbers"), ([1j], "no type of real numbers"),
    ([[1.0, 2.0], [3.0]], "equally long"), ([], "no numbers")])
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
    with pytest.raises(OptionError, match=r"bits is 2\.5, and must be a whole number"):
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


W = np.array([[0.5, -1.0], [1.0, 0.25]])
Q, ROW = fb.linear_quantize(W, 8, symmetric=True), fb.linear_quantize([[1.0, 2.0]], 8)
BOOK = fb.kmeans_quantize(W, 1)
NAN, INF = float("nan"), float("inf")
WRONG: list[Any] = [
    None, "abc", "", 1j, NAN, INF, -INF, -1, 0, 1.5, 4.5, 2**70, 10**400, True, b"x", object(), {}, range(3), torch,
    nn.Linear(2, 2), Q, ROW.encoding, [], [[1.0, 2.0], [3.0]], ["a"], [NAN], [INF], [1.0, 2.0], [1, 4], (1,),
    np.array(["a"]), np.zeros((0, 3)), np.zeros((2, 2, 2)), np.array([1 + 2j]), np.array(None), np.array([1e300]),
    np.array([-5]), np.datetime64("2020-01-01"), torch.zeros(3, dtype=torch.complex64), torch.tensor([NAN, 1.0]),
    torch.ones(2, dtype=torch.float16), torch.ones(2, 2, dtype=torch.bfloat16), torch.ones(2, 2, dtype=torch.bool),
    torch.zeros(2, 2), torch.ones(2, 2).to_sparse(), torch.empty(2, 2, device="meta")]


def quantizer(**options: Any) -> torch.Tensor:
    return fb.Quantizer(**options)(torch.ones(3))


CALLS: list[tuple[Callable[..., object], dict[str, Any]]] = [
    (fb.linear_quantize, {"x": W, "bits": 4, "symmetric": False, "signed": True, "block": "tensor", "scale": 0.1,
                          "zero_point": 0, "include_zero": True, "convention": "restricted", "rounding": "half_even"}),
    (fb.linear_quantize, {"x": W, "bits": 4, "block": "channel", "include_zero": False}),
    (fb.scale_and_zero_point, {"x": W, "bits": 4, "symmetric": False, "signed": True, "block": "tensor",
                               "include_zero": True, "convention": "restricted"}),
    (Q.error, {"real": W}),
    (fb.quantized_linear, {"x": ROW, "weight": Q, "bias": [0.1, 0.2], "output": ROW.encoding}),
    (fb.quantized_conv2d, {"x": X, "weight": KERNEL, "bias": None, "output": X.encoding, "stride": 1, "padding": 0,
                           "dilation": 1, "groups": 1}),
    (fb.fold_batch_norm, {"layer": nn.Linear(3, 2), "norm": nn.BatchNorm1d(2).eval()}),
    (fb.kmeans_quantize, {"x": W, "bits": 1, "start": "random", "seed": 0}),
    (fb.Codebook, {"centroids": np.array([0.0, 1.0]), "labels": np.array([0, 1])}),
    (BOOK.refresh, {"x": W}), (BOOK.step, {"gradient": W, "rate": 1.0}), (BOOK.error, {"x": W}),
    (fb.round_pass, {"x": torch.ones(2), "rounding": "half_even"}),
    (quantizer, {"bits": 4, "always_pos": False, "offset": 0.5}), (fb.Quantizer(4), {"x": torch.ones(3)}),
    (fb.QuantLinear, {"in_features": 2, "out_features": 2, "bias": True, "bits": 4}),
    (fb.Fixed, {"raw": np.zeros(2, "int16"), "integer_bits": 8, "fraction_bits": 8}),
    (fb.Fixed.of, {"real": [1.0], "integer_bits": 8, "fraction_bits": 8}),
    (fb.dynamic_fixed_point, {"x": W, "bits": 8, "role": "weights", "fraction": 3, "rounding": "half_away"}),
    (fb.minifloat, {"x": W, "exponent_bits": 4, "mantissa_bits": 3}),
    (fb.kl_threshold, {"histogram": [10, 8, 6, 4, 2, 1, 0, 1], "levels": 4, "variant": "slides"}),
    (fb.huffman, {"codes": [0, 1, 1]}), (fb.float_fields, {"name": "fp32", "number": 0.25}),
    (fb.parse, {"text": "int8"})]
EVERY = [(called, given, name) for called, given in CALLS for name in given]


@pytest.mark.parametrize(("called", "given", "name"), EVERY,
                         ids=[f"{getattr(c, '__name__', type(c).__name__)}-{n}" for c, _, n in EVERY])
def test_every_argument_is_taken_or_refused_in_one_sentence(called, given, name):
    """Whatever stands in an argument's place: an answer of finite numbers, or one short sentence of ours, and no
    warning of NumPy's."""
    called(**given)
    refused = []
    for wrong in WRONG:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                answer = called(**{**given, name: wrong})
            except FewbitsError as error:
                refused.append(str(error))
                continue
        for numbers in (answer, getattr(answer, "centroids", None)):
            assert not isinstance(numbers, np.ndarray) or np.isfinite(numbers).all(), wrong
    assert len(refused) >= 8
    assert [each for each in refused if "\n" in each or len(each) > 300] == []


@pytest.mark.parametrize("options", [(0, 0), (4.5, 3), (4, 0), (1, 3), (9, 3), (4, 24)])
def test_a_minifloat_that_is_none(options):
    with pytest.raises(FewbitsError, match=r"minifloat has|must be a whole number"):
        fb.minifloat(W, *options)


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_batch_norm_behind_a_transposed_convolution(kind, groups):
    """Its output channels are the second axis of the weight."""
    torch.manual_seed(0)
    layer = kind(4, 6, 3, groups=groups)
    norm = (nn.BatchNorm1d if kind is nn.ConvTranspose1d else nn.BatchNorm2d)(6).eval()
    for numbers in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        numbers.uniform_(0.5, 2.0)
    x = torch.randn(2, 4, *[5] * (layer.weight.ndim - 2))
    with torch.no_grad():
        torch.testing.assert_close(fb.fold_batch_norm(layer, norm)(x), norm(layer(x)), atol=1e-5, rtol=1e-5)


def test_a_batch_norm_behind_what_has_no_weights():
    for layer in (nn.ReLU(), nn.BatchNorm1d(2), 3):
        with pytest.raises(CaptureError, match="takes no batch norm in"):
            fb.fold_batch_norm(layer, nn.BatchNorm1d(2).eval())
    with pytest.raises(CaptureError, match="is no batch norm"):
        fb.fold_batch_norm(nn.Linear(3, 2), nn.ReLU())


def test_blocks_that_are_channels_in_other_words():
    """A whole row under one scale, as [1, K] has it, is a scale per output channel."""
    other = fb.linear_quantize(W, 8, symmetric=True, block=[1, 2])
    assert other.scale.shape == (2, 1)
    one = fb.quantized_linear(ROW, fb.linear_quantize(W, 8, symmetric=True, block="channel"), None, ROW.encoding)
    assert np.array_equal(fb.quantized_linear(ROW, other, None, ROW.encoding).codes, one.codes)
    with pytest.raises(EncodingError, match=r"not 4 of block \(1, 1\): quantize it per channel"):
        fb.quantized_linear(ROW, fb.linear_quantize(W, 8, symmetric=True, block=[1, 1]), None, ROW.encoding)


def test_roundings_by_name():
    x = torch.tensor([0.5, 1.5, -2.5], requires_grad=True)
    fb.round_pass(x, "half_away").sum().backward()
    assert fb.round_pass(x, "half_away").tolist() == [1.0, 2.0, -3.0]
    assert fb.round_pass(x, "half_even").tolist() == [0.0, 2.0, -2.0]
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_centroid_of_exactly_0_in_either_type(kind):
    """0.09 + 0.05 − 0.14 as float32 numbers is 7e-10 in float64: what float32 cannot tell from 0 is 0."""
    x = np.array([2.09, -0.98, 1.48, 0.09, 0.05, -0.14, -1.08, 2.12], np.float32).astype(kind)
    assert fb.kmeans_quantize(x, 2).centroids[1] == 0.0


def test_calibration_by_what_is_no_function():
    net, x = nn.Sequential(nn.Linear(3, 2)).eval(), torch.randn(4, 3)
    model = fb.fold(fb.capture(net, x))
    with pytest.raises(FewbitsError, match=r"callback is 5: give a function that takes the simulation"):
        fb.calibrate(model, fb.plan(model, "w8a8"), callback=5)  # pyright: ignore[reportArgumentType]
    sim = fb.calibrate(model, fb.plan(model, "w8a8"), [x])
    before = str(sim.encodings())
    with pytest.raises(FewbitsError, match="callback is None"):
        sim.compute_encodings(None)  # pyright: ignore[reportArgumentType]
    assert str(sim.encodings()) == before

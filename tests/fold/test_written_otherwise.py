"""Operators that are a rearrangement of others: folding changes nothing, and each becomes a program."""

import pytest
import torch
import torch.nn.functional as F
from tests.called import Call
from tests.fold.test_masks import decibels, same_everywhere
from torch import nn

import fewbits as fb
from fewbits.errors import CaptureError
from fewbits.program.ops import Constant

torch.manual_seed(0)
IMAGES, TOKENS, ROWS = torch.randn(6, 6, 8, 10), torch.randn(6, 7, 16), torch.randn(16, 16)
WEIGHT, GAIN = torch.randn(4, 16, 5) * 0.2, torch.rand(16) + 0.5

EXACT = {
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), IMAGES),
    "nearest, 1-D": (lambda x: F.interpolate(x, scale_factor=2), TOKENS),
    "nearest exact": (lambda x: F.interpolate(x, size=(11, 7), mode="nearest-exact"), IMAGES),
    "a list of channels": (lambda x: x[:, [3, 1, 0]], IMAGES),
    "lists along two axes": (lambda x: x[:, [0, 1], [2, -1]], IMAGES),
    "swapaxes, movedim": (lambda x: x.swapaxes(1, 2).movedim(1, -1), IMAGES),
    "repeat": (lambda x: x.repeat(1, 2, 1, 3), IMAGES),
    "tile": (lambda x: x.tile(2, 1, 1), IMAGES),
    "pad -inf before a pool": (lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2), IMAGES),
    "crop and pad": (lambda x: F.pad(x, (-1, 2, 0, -1)), IMAGES),
    "reshape_as": (lambda x: x.reshape_as(x.flatten(2)), IMAGES),
}
NUMBERS = {
    "amin": (lambda x: x.amin((2, 3)), IMAGES),
    "min of an axis": (lambda x: x.min(1).values, TOKENS),
    "linear, 1-D": (lambda x: F.interpolate(x, scale_factor=2, mode="linear"), TOKENS),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), IMAGES),
    "bilinear, antialiased": (lambda x: F.interpolate(x, size=(5, 6), mode="bilinear", antialias=True), IMAGES),
    "add alpha": (lambda x: torch.add(x.exp(), x, alpha=0.3), TOKENS),
    "clamp by tensors": (lambda x: x.clamp(torch.tensor(-1.0), torch.tensor(1.0)), TOKENS),
    "clamp away from 0": (lambda x: x.clamp(0.5, 2), TOKENS),
    "clamp_min away from 0": (lambda x: x.clamp_min(0.5), TOKENS),
    "pad with a number": (lambda x: F.pad(x, (1, 1, 1, 1), value=1.5), IMAGES),
    "F.normalize": (lambda x: F.normalize(x, dim=1), TOKENS),
    "RMS norm": (lambda x: F.rms_norm(x, (16,), GAIN), TOKENS),
    "RMS norm by hand": (lambda x: GAIN * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)), TOKENS),
    "divided by a root": (lambda x: x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt(), TOKENS),
    "length": (lambda x: torch.linalg.vector_norm(x, dim=2), TOKENS),
    "addmm": (lambda x: torch.addmm(GAIN, x, WEIGHT.flatten(1)[:, :16].T.reshape(16, 4) @ torch.ones(4, 16)), ROWS),
    "batched weights": (lambda x: x[:, None] @ WEIGHT, TOKENS),
    "einsum, two values": (lambda x: torch.einsum("bid,bjd->bij", x, x.flip(1)), TOKENS),
    "einsum, a weight": (lambda x: torch.einsum("bnd,hdk->bhnk", x, WEIGHT), TOKENS),
    "a computed linear": (lambda x: F.linear(x[:, :3], torch.ones(5, 16) * 0.1), TOKENS),
    "grouped heads": (lambda x: F.scaled_dot_product_attention(
        x.unflatten(-1, (4, 4)).transpose(1, 2), x[..., :8].unflatten(-1, (2, 4)).transpose(1, 2),
        x[..., 8:].unflatten(-1, (2, 4)).transpose(1, 2), enable_gqa=True), TOKENS),
    "uncropped transposed convolution": (lambda x: F.conv_transpose2d(
        x, torch.ones(6, 2, 2, 2) * 0.1, stride=2, padding=2), IMAGES),
} | {name: (getattr(torch, name), ROWS.abs() * 0.5) for name in (
    "log1p", "sin", "cos", "expm1", "exp2", "erfc", "atan", "sinh", "asinh")} | {
    "softshrink": (lambda x: F.softshrink(x, 0.1), ROWS), "hardshrink": (lambda x: F.hardshrink(x, 0.5), ROWS),
    "floor": (lambda x: torch.floor(x * 2) + x, ROWS), "tanhshrink": (F.tanhshrink, ROWS), "mish": (F.mish, ROWS)}


def program_of(function, x):
    net = Call(function)
    folded = fb.fold(fb.capture(net, x))
    torch.testing.assert_close(folded(x), net(x), rtol=1e-5, atol=1e-5)
    quantized = fb.quantize(net, x, [x])
    assert same_everywhere(quantized.program, x)
    assert not quantized.program.has_islands
    return quantized


@pytest.mark.parametrize("name", EXACT)
def test_what_only_moves_numbers_changes_none(name):
    function, x = EXACT[name]
    quantized = program_of(function, x)
    plain = fb.quantize(Call(lambda x: x.flatten(1)), x, [x])
    assert torch.equal(quantized(x), function(plain(x).reshape(x.shape)))


@pytest.mark.parametrize("name", NUMBERS)
def test_each_becomes_a_program(name):
    function, x = NUMBERS[name]
    quantized = program_of(function, x)
    assert decibels(function(x), quantized(x)) > 22


@pytest.mark.parametrize("name", [*NUMBERS])
def test_weights_alone_touch_no_other_operator(name):
    """Left in float, as weights-only recipes leave it: the network's numbers, but for matrices that are weights."""
    function, x = NUMBERS[name]
    kept = fb.quantize(Call(function), x, recipe="w8")
    if any(isinstance(node, Constant) for node in kept.program.nodes):
        assert decibels(function(x), kept(x)) > 40
    else:
        torch.testing.assert_close(kept(x), function(x), rtol=1e-4, atol=1e-4)
    assert same_everywhere(kept.program, x)


class Modules(nn.Module):
    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.line = change(nn.Linear(16, 4))

    def forward(self, x):
        return self.line(x)


@pytest.mark.parametrize("change", [
    torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.spectral_norm,
    lambda layer: torch.nn.utils.prune.l1_unstructured(layer, "weight", 0.5), torch.compile])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_wraps_a_layer_is_taken_off(change):
    net = Modules(change).eval()
    assert decibels(net(ROWS).detach(), fb.quantize(net, ROWS, [ROWS])(ROWS)) > 30


@pytest.mark.parametrize(("net", "sentence"), [
    (nn.LazyLinear(4), "is lazy and has no weights yet"),
    (torch.jit.trace(nn.Linear(16, 4), ROWS), "is a torch.jit module"),
])
@pytest.mark.filterwarnings("ignore")
def test_modules_without_python_or_weights_are_refused(net, sentence):
    with pytest.raises(CaptureError, match=sentence):
        fb.quantize(net, ROWS, [ROWS])

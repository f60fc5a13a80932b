"""Convolutions of codes, channels last; a linear layer is one of a row of pixels (docs/numerics.md, eq. 4)."""

import ctypes
from dataclasses import dataclass, replace

import numpy as np

from fewbits.errors import KernelError
from fewbits.kernels import structs
from fewbits.kernels.calls import address, aligned, refuse
from fewbits.kernels.library import native
from fewbits.kernels.rescaling import Rescaling

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Layer:
    """weights: int8 or int16 [O, kernel, kernel, C / groups], less their zero points; bias: int32 [O]; margins: (top,
    bottom, left, right); x_zero: as x is stored."""

    weights: np.ndarray
    bias: np.ndarray | None
    rescaling: Rescaling
    x_zero: int
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    def out_size(self, height: int, width: int) -> Pair:
        """Height and width of the output."""
        top, bottom, left, right = self.margins
        high, wide = (1 + (size - d * (k - 1) - 1) // s for size, k, s, d in zip(
            (height + top + bottom, width + left + right), self.weights.shape[1:3], self.stride, self.dilation,
                strict=True))
        return high, wide

    def joined(self, pixels: int) -> "Layer":
        """The same numbers written in the same order, so many neighbouring pixels of a row of the output at once, as
        channels of one: the width of the output must be a multiple. Without groups or dilation."""
        outs, high, wide, depth = self.weights.shape
        step = self.stride[1]
        weights = np.zeros((pixels, outs, high, wide + (pixels - 1) * step, depth), self.weights.dtype)
        for pixel in range(pixels):
            weights[pixel, :, :, pixel * step:pixel * step + wide] = self.weights
        return replace(self, weights=weights.reshape(pixels * outs, *weights.shape[2:]),
                       bias=None if self.bias is None else np.tile(self.bias, pixels),
                       rescaling=self.rescaling.repeated(pixels), stride=(self.stride[0], pixels * step))

    def struct(self, x_shape: tuple[int, int, int, int], x_type: int = structs.U8, beyond: int = 0) -> structs.Conv:
        """A call without x and y, of the weights as they are. x_shape: [batch, height, width, C]."""
        batch, height, width, channels = x_shape
        kind = structs.S16 if self.weights.dtype == np.int16 else structs.S8
        return structs.Conv(
            op=structs.CONV, x_type=x_type, weights=address(self.weights), bias=address(self.bias),
            rescale=self.rescaling.struct(), weight_type=kind, layout=structs.PLAIN, x_zero=self.x_zero, batch=batch,
            height=height, width=width, channels=channels, out_channels=len(self.weights), groups=self.groups,
            kernel_h=self.weights.shape[1], kernel_w=self.weights.shape[2], stride_h=self.stride[0],
                stride_w=self.stride[1],
            dilation_h=self.dilation[0], dilation_w=self.dilation[1], top=self.margins[0], bottom=self.margins[1],
            left=self.margins[2], right=self.margins[3], beyond=beyond)


def pack(call: structs.Conv, few: bool = False) -> np.ndarray | None:
    """The weights of a call, which then points to them as they are read fastest at this level; None where it runs with
    them as they are. few: in 1, 2 or 4 bits, where so few tell them apart and the level reads them so. Raises
    KernelError for a call that is refused; x and y need not be there."""
    library = native()
    if library is None:
        raise KernelError("there is no native library: python -m fewbits.kernels.build makes it")
    whole = structs.Conv.from_buffer_copy(call)
    whole.x, whole.y = call.weights, call.weights  # for the check: nothing is read
    whole.layout = structs.FEW if few else structs.PLAIN
    size = library.fb_packed_bytes(ctypes.addressof(whole))
    refuse(-min(size, 0), call)
    if size == 0:
        return None
    packed = aligned(size)
    refuse(library.fb_pack(ctypes.addressof(whole), packed.ctypes.data, size), call)
    call.weights, call.layout = packed.ctypes.data, structs.PACKED
    return packed


def conv_reference(layer: Layer, x: np.ndarray) -> np.ndarray:
    """[batch, height, width, O] of codes [batch, height, width, C]."""
    top, bottom, left, right = layer.margins
    centred = np.pad(x.astype(np.int64) - layer.x_zero, ((0, 0), (top, bottom), (left, right), (0, 0)))
    outs, kernel_h, kernel_w, depth = layer.weights.shape
    high, wide = layer.out_size(*x.shape[1:3])
    sums = np.zeros((len(x), high, wide, layer.groups, outs // layer.groups), np.int64)
    weights = layer.weights.astype(np.int64).reshape(layer.groups, -1, kernel_h, kernel_w, depth)
    for ky in range(kernel_h):
        for kx in range(kernel_w):
            y0, x0 = ky * layer.dilation[0], kx * layer.dilation[1]
            taps = centred[:, y0:y0 + (high - 1) * layer.stride[0] + 1:layer.stride[0],
                           x0:x0 + (wide - 1) * layer.stride[1] + 1:layer.stride[1]]
            sums += np.einsum("nhwgc,goc->nhwgo", taps.reshape(*taps.shape[:3], layer.groups, depth), weights[:, :,
                                                                                                              ky, kx])
    total = sums.reshape(*sums.shape[:3], outs)
    return layer.rescaling.reference(total if layer.bias is None else total + layer.bias)

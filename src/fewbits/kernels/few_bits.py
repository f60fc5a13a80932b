"""Layers with few-bit weights: calls Binary, Sparse and Grouped (native/fewbits.h), their packing and their
definitions."""

from dataclasses import dataclass

import numpy as np

from fewbits.errors import KernelError
from fewbits.kernels import structs
from fewbits.kernels.calls import address, aligned, refuse
from fewbits.kernels.conv import Layer, Pair, conv_reference
from fewbits.kernels.library import native
from fewbits.kernels.rescaling import Rescaling


@dataclass(frozen=True, eq=False)
class Few:
    """Numbers of one or two bits. A code stands for low + step · (its bits from `first` on, `bits` of them)."""

    bits: int
    low: int
    step: int
    first: int = 0

    def numbers(self, codes: np.ndarray) -> np.ndarray:
        """int64, what codes stand for."""
        return self.low + self.step * (codes.astype(np.int64) >> self.first & 2**self.bits - 1)


@dataclass(frozen=True, eq=False)
class Planes:
    """A layer of codes and weights of one or two bits. w: uint8 [columns, kernel, kernel, C], read by `weights`; bias:
    int32 [columns] or None; codes: how x is read; outside the image is the number 0."""

    w: np.ndarray
    weights: Few
    codes: Few
    bias: np.ndarray | None
    rescaling: Rescaling
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)

    def packed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Planes uint64 [columns / 8, w_bits, words, 8]; the bias with what the lowest number adds; what places outside
        the image add, int32 [kernel · kernel, columns filled up to 8], or None."""
        columns = len(self.w)
        depth = self.w[0].size
        blocks, words = (columns + 7) // 8, (depth + 63) // 64
        filled = np.zeros((blocks * 8, words * 64), np.uint8)
        filled[:columns, :depth] = self.w.reshape(columns, depth) >> self.weights.first
        planes = np.stack([np.packbits(filled >> bit & 1, axis=1, bitorder="little").view("<u8").reshape(
            blocks, 8, words) for bit in range(self.weights.bits)], 1).swapaxes(2, 3)
        of_place = self.weights.numbers(self.w).sum(3).reshape(columns, -1)
        bias = np.zeros(columns, np.int64) if self.bias is None else self.bias.astype(np.int64)
        bias = bias + self.codes.low * of_place.sum(1)
        outside = None
        if any(self.margins) and self.codes.low:
            outside = np.zeros((of_place.shape[1], blocks * 8), np.int32)
            outside[:, :columns] = -self.codes.low * of_place.T
        return np.ascontiguousarray(planes, np.uint64), bias.astype(np.int32), outside

    def struct(self, x_shape: tuple[int, int, int, int],
               packed: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> structs.Binary:
        """A call without x and y. x_shape: [batch, height, width, C]; packed: of `packed`."""
        planes, bias, outside = packed
        batch, height, width, channels = x_shape
        top, bottom, left, right = self.margins
        return structs.Binary(
            op=structs.BINARY, x_bits=self.codes.bits, w_bits=self.weights.bits, x_first=self.codes.first,
            x_low=self.codes.low, x_step=self.codes.step, w_low=self.weights.low, w_step=self.weights.step,
            weights=address(planes), bias=address(bias), outside=address(outside), rescale=self.rescaling.struct(),
            batch=batch, height=height, width=width, channels=channels, columns=len(self.w),
            kernel_h=self.w.shape[1], kernel_w=self.w.shape[2], stride_h=self.stride[0], stride_w=self.stride[1],
            dilation_h=self.dilation[0], dilation_w=self.dilation[1], top=top, bottom=bottom, left=left, right=right)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """[batch, height, width, columns] of codes [batch, height, width, C]."""
        weights = self.weights.numbers(self.w).astype(np.int16)
        made = Layer(weights, self.bias, self.rescaling, 0, self.stride, self.dilation, self.margins)
        return conv_reference(made, self.codes.numbers(x))


@dataclass(frozen=True, eq=False)
class ByPlaces:
    """Nonzero weights by their places: starts int32 [columns + 1], places uint16, which uint8, values int16 [256]."""

    starts: np.ndarray
    places: np.ndarray
    which: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class ByPicks:
    """Nonzero weights beside their places in 128 depths: counts uint16 [columns / 16, depth / 128] of steps, steps
    uint8 [..., 128] (64 places, 64 weights), and where those of each block begin, int64 [columns / 16 + 1]."""

    counts: np.ndarray
    steps: np.ndarray
    begins: np.ndarray


@dataclass(frozen=True, eq=False)
class Pruned:
    """A layer whose weights are mostly 0. weights: int16 [columns, depth] of at most 255 different values beside 0, or
    int8 of any."""

    weights: np.ndarray
    x_zero: int
    bias: np.ndarray | None
    rescaling: Rescaling

    def start(self) -> np.ndarray:
        """int32 [columns]: the bias, less what the zero point of x adds."""
        zero = self.x_zero * self.weights.sum(1, dtype=np.int64)
        return ((0 if self.bias is None else self.bias.astype(np.int64)) - zero).astype(np.int32)

    def by_places(self) -> ByPlaces:
        """For any level."""
        columns, places = np.nonzero(self.weights)
        values, which = np.unique(self.weights[columns, places], return_inverse=True)
        starts = np.searchsorted(columns, np.arange(len(self.weights) + 1)).astype(np.int32)
        held = np.zeros(256, np.int16)
        held[:values.size] = values
        at_least_one = max(places.size, 1)  # an empty array has no address
        return ByPlaces(starts, np.resize(places, at_least_one).astype(np.uint16),
                        np.resize(which, at_least_one).astype(np.uint8), held)

    def by_picks(self) -> ByPicks:
        """For levels that pick bytes from registers (library.picks_bytes); right at any. Weights of 8 bits only."""
        columns, depth = self.weights.shape
        blocks, segments = (columns + 15) // 16, (depth + 127) // 128
        filled = np.zeros((blocks * 16, segments * 128), np.int8)
        filled[:columns, :depth] = self.weights
        laid = filled.reshape(blocks, 16, segments, 128).transpose(0, 2, 1, 3)
        block, segment, column, place = np.nonzero(laid)
        of_column = np.count_nonzero(laid, axis=3)
        counts = (of_column.max(2) + 3) // 4
        begins = np.append(0, counts.sum(1).cumsum())
        before = begins[:-1, None] + np.cumsum(counts, 1) - counts  # steps before those of a segment
        nth = np.arange(place.size) - np.repeat(of_column.reshape(-1).cumsum() - of_column.reshape(-1),
                                                of_column.reshape(-1))
        steps = aligned((max(int(begins[-1]), 1), 128))
        step, lane = before[block, segment] + nth // 4, 4 * column + nth % 4
        steps[step, lane] = place
        steps[step, 64 + lane] = laid[block, segment, column, place].view(np.uint8)
        return ByPicks(counts.astype(np.uint16), steps, begins.astype(np.int64))

    def struct(self, x: np.ndarray, packed: ByPlaces | ByPicks, start: np.ndarray, y: np.ndarray) -> structs.Sparse:
        """packed: of `by_places` or `by_picks`; start: of `start`."""
        call = structs.Sparse(op=structs.SPARSE, x=address(x), y=address(y), bias=address(start),
                              rescale=self.rescaling.struct(), rows=x.shape[0], depth=x.shape[1],
                              columns=len(self.weights))
        if isinstance(packed, ByPlaces):
            call.starts, call.places = address(packed.starts), address(packed.places)
            call.which, call.values = address(packed.which), address(packed.values)
        else:
            call.counts, call.steps, call.begins = (address(packed.counts), address(packed.steps),
                                                    address(packed.begins))
        return call

    def reference(self, x: np.ndarray) -> np.ndarray:
        """[rows, columns]."""
        sums = (x.astype(np.int64) - self.x_zero) @ self.weights.astype(np.int64).T
        return self.rescaling.reference(sums if self.bias is None else sums + self.bias)


@dataclass(frozen=True, eq=False)
class FewBits:
    """A layer of packed weights. w: uint8 [columns, depth] below 2^bits (1, 2, 4 or 8), standing for values[w] (int8);
    factors: float32 [columns, groups] where the depth has more than one group of `group`, None otherwise."""

    w: np.ndarray
    bits: int
    values: np.ndarray
    group: int
    factors: np.ndarray | None
    x_zero: int
    bias: np.ndarray | None
    rescaling: Rescaling

    def packed(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The weights as they are read, and the factors beside them. Raises KernelError for what does not fit."""
        library = native()
        if library is None:
            raise KernelError("there is no native library: python -m fewbits.kernels.build makes it")
        columns, depth = self.w.shape
        size = library.fb_grouped_bytes(self.bits, columns, depth, self.group)
        refuse(-min(size, 0), self)
        out = aligned(size)
        w, values = np.ascontiguousarray(self.w), np.ascontiguousarray(self.values, np.int8)
        refuse(library.fb_pack_grouped(w.ctypes.data, values.ctypes.data, self.bits, columns, depth, self.group,
                                       out.ctypes.data, size), self)
        if self.factors is None:
            return out, None
        blocks, groups = (columns + 15) // 16, self.factors.shape[1]
        filled = np.zeros((blocks * 16, groups), np.float32)
        filled[:columns] = self.factors
        return out, np.ascontiguousarray(filled.reshape(blocks, 16, groups).transpose(0, 2, 1))

    def struct(self, x: np.ndarray, packed: np.ndarray, factors: np.ndarray | None, y: np.ndarray) -> structs.Grouped:
        """packed, factors: of `packed`."""
        return structs.Grouped(op=structs.GROUPED, bits=self.bits, x=address(x), y=address(y), weights=address(packed),
                               factors=address(factors), bias=address(self.bias), rescale=self.rescaling.struct(),
                               x_zero=self.x_zero, rows=x.shape[0], depth=x.shape[1], columns=len(self.w),
                                   group=self.group)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """[rows, columns]; with groups, their parts are added in float32 one after the other."""
        centred, w = x.astype(np.int64) - self.x_zero, self.values.astype(np.int64)[self.w]
        if self.factors is None:
            sums = centred @ w.T
            return self.rescaling.reference(sums if self.bias is None else sums + self.bias)
        total: np.ndarray | None = None
        for number in range(self.factors.shape[1]):
            some = slice(number * self.group, (number + 1) * self.group)
            part = (centred[:, some] @ w[:, some].T).astype(np.float32) * self.factors[:, number]
            total = part if total is None else total + part
        assert total is not None
        return total if self.rescaling.offset is None else total + self.rescaling.offset

"""Granularity: which elements of a tensor share one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.rounding import Array
from fewbits.options import shown


@dataclass(frozen=True)
class Block:
    """Quantization granularity: per axis, the number of neighbouring elements that share a scale; -1 is the whole axis.

    Axes behind the last one given are whole, so one block serves tensors of any rank, and trailing
    -1 are dropped: `()` is the whole tensor, `(1,)` one scale per channel (first axis), `(-1, 1)`
    one per entry of the second axis, `(1, 128)` groups of 128 along the second axis.
    Raises EncodingError for a size of 0 or below -1.
    """

    sizes: tuple[int, ...] = ()

    def __post_init__(self):
        sizes = tuple(self.sizes)
        if any(not isinstance(s, int) or isinstance(s, bool) or s == 0 or s < -1 for s in sizes):
            raise EncodingError(f"a block is made of sizes ≥ 1, or -1 for a whole axis, not {shown(sizes)}")
        while sizes and sizes[-1] == -1:
            sizes = sizes[:-1]
        object.__setattr__(self, "sizes", sizes)

    def _size(self, axis: int, length: int) -> int:
        size = self.sizes[axis] if axis < len(self.sizes) else -1
        return length if size == -1 else size

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the scales of a tensor of `shape`; `()` for the whole tensor.

        Raises EncodingError when the tensor has too few axes or an axis is not a multiple of its size.
        """
        if not self.sizes:
            return ()
        if len(self.sizes) > len(shape):
            raise EncodingError(f"block {self} has more axes than a tensor of shape {tuple(shape)}")
        sizes = [self._size(axis, length) for axis, length in enumerate(shape)]
        for axis, (size, length) in enumerate(zip(sizes, shape, strict=True)):
            if size and length % size:
                raise EncodingError(f"block {self} does not divide axis {axis} of shape {tuple(shape)}")
        return tuple(length // size if size else 1 for size, length in zip(sizes, shape, strict=True))

    def expand(self, per_block: Array, shape: Sequence[int]) -> Array:
        """Per-block values (shape `scale_shape(shape)`, NumPy or torch) made broadcastable to `shape`."""
        for axis, size in enumerate(self.sizes):
            if size > 1:
                repeats = min(size, shape[axis])
                per_block = (np.repeat(per_block, repeats, axis) if isinstance(per_block, np.ndarray)
                             else per_block.repeat_interleave(repeats, axis))
        return per_block

    def split(self, x):
        """View x (NumPy or torch) as `(values, axes)`: reducing `values` over `axes` gives one number per
        block, in shape `scale_shape(x.shape)`."""
        if not self.sizes:
            return x, tuple(range(x.ndim))
        self.scale_shape(x.shape)
        shape: list[int] = []
        axes: list[int] = []
        for axis, length in enumerate(x.shape):
            size = self._size(axis, length)
            shape += [length // size if size else 1, size]
            axes.append(2 * axis + 1)
        return x.reshape(shape), tuple(axes)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """The numbers of each block in a row, [blocks, numbers of a block], blocks in the order of `scale_shape`."""
        values, axes = self.split(x)
        kept = [axis for axis in range(values.ndim) if axis not in axes]
        blocks = prod(values.shape[axis] for axis in kept)
        return values.permute(*kept, *axes).reshape(blocks, -1)

    def __str__(self) -> str:
        names = {(): "tensor", (1,): "channel"}
        return names.get(self.sizes, "(" + ", ".join(map(str, self.sizes)) + ")")


TENSOR = Block(())
CHANNEL = Block((1,))


def parse_block(text: str | Sequence[int]) -> Block:
    """The block a recipe names: `tensor`, `channel`, or a list of sizes such as [1, 128]."""
    if isinstance(text, str):
        named = {"tensor": TENSOR, "channel": CHANNEL}
        if text not in named:
            raise EncodingError(f"no block is called {text!r}: write tensor, channel, or sizes such as [1, 128]")
        return named[text]
    if not isinstance(text, Sequence) and not (isinstance(text, np.ndarray) and text.ndim == 1):
        raise EncodingError(f"{shown(text)} is no block: write tensor, channel, or sizes such as [1, 128]")
    return Block(tuple(int(size) if isinstance(size, np.integer) else size for size in text))

"""Operators that move numbers or pick among them: codes keep their encoding, plain numbers their type."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F

from fewbits.program.node import ProgramNode
from fewbits.program.ops import fits
from fewbits.program.ops.record import Example, Layer, Record, called, holds_nothing, reads_one
from fewbits.program.ops.samples import IMAGE, WIDE, X
from fewbits.program.ops.work import nothing
from fewbits.program.value import PLAIN, Kind, Scope, Shape, Value

__all__ = ["Gather", "Pad", "Reshape", "Slice", "Transpose"]


@dataclass(frozen=True, eq=False)
class Gather(ProgramNode):
    """Some of the entries along an axis, in any order, any number of times: nearest resize, expand, repeat, flip."""

    input: str
    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Reshape(ProgramNode):
    """The same codes in another shape. -1 stands where the size follows from the others, as that of the batch does; 0
    for the size of that very axis of what it reads."""

    input: str
    shape: tuple[int, ...]

    def of(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Its shape where what it reads has these sizes, a -1 left as it is."""
        return tuple(sizes[axis] if size == 0 else size for axis, size in enumerate(self.shape))


@dataclass(frozen=True, eq=False)
class Transpose(ProgramNode):
    """Axes in another order."""

    input: str
    permutation: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slice(ProgramNode):
    """start:stop:step along one axis, inside the axis. start and stop below 0 count from its end, where its size is not
    known beforehand; a stop beyond it is its end."""

    input: str
    axis: int
    start: int
    stop: int
    step: int


@dataclass(frozen=True, eq=False)
class Pad(ProgramNode):
    """The number 0 around: one (before, after) per axis, none negative."""

    input: str
    margins: tuple[tuple[int, int], ...]


def _gather(program: Scope, node: Gather, x: np.ndarray) -> np.ndarray:
    return x.take(node.indices, node.axis)


def _reshape(program: Scope, node: Reshape, x: np.ndarray) -> np.ndarray:
    return x.reshape(node.of(x.shape))


def _transpose(program: Scope, node: Transpose, x: np.ndarray) -> np.ndarray:
    return x.transpose(node.permutation)


def _slice(program: Scope, node: Slice, x: np.ndarray) -> np.ndarray:
    return x[(slice(None),) * node.axis + (slice(node.start, node.stop, node.step),)]


def _pad(program: Scope, node: Pad, x: np.ndarray) -> np.ndarray:
    zero = 0 if program.kind(node.input) in PLAIN else int(program.encoding(node.input).zero_point)
    return np.pad(x, node.margins, constant_values=zero)


_CODES: frozenset[Kind] = frozenset({"codes"})


def _moves(does: str, reference: Callable[..., np.ndarray], check: Callable[[Scope, Any], None], layer: Layer,
           node: ProgramNode, shape: Shape, wide: bool = True) -> Record:
    """The record of a node that moves numbers, with one example that reads an image. wide: codes of any width."""
    return Record(
        does=does,
        equations="",
        reads=reads_one,
        takes=PLAIN | _CODES,
        writes="moved",
        wide="both" if wide else "no",
        check=check,
        reference=reference,
        sums=None,
        rescaling=None,
        limits={},
        work=nothing,
        float_work=nothing,
        holds=holds_nothing,
        computes=(),
        layer=layer,
        examples=lambda: (Example(node, {"x": Value(IMAGE, X)}, Value(shape, X)),
                          Example(node, {"x": Value(IMAGE, None)}, Value(shape, None)),
                          Example(node, {"x": Value(IMAGE, None, "bool")}, Value(shape, None, "bool")),
                          *((Example(node, {"x": Value(IMAGE, WIDE)}, Value(shape, WIDE)),) if wide else ())),
    )


RECORDS = {
    Gather: _moves("entries along an axis, in any order, any number of times", _gather, fits.gather,
                   called(lambda x: x.flip(3)), Gather("y", "x", 3, (6, 6, 0, 2)), (None, 3, 6, 4)),
    Reshape: _moves("the same numbers in another shape", _reshape, fits.reshape,
                    called(lambda x: x.flatten(2).unflatten(2, (x.shape[3], x.shape[2]))),
                    Reshape("y", "x", (-1, 9, 14)), (None, 9, 14)),
    Transpose: _moves("axes in another order", _transpose, fits.transpose, called(lambda x: x.transpose(2, 3)),
                      Transpose("y", "x", (0, 3, 1, 2)), (None, 7, 3, 6)),
    Slice: _moves("a part of an axis", _slice, fits.cut, called(lambda x: x[:, :, 1:]), Slice("y", "x", 2, 1, 6, 2),
                  (None, 3, 3, 7)),
    Pad: _moves("the number 0 around", _pad, fits.pad, called(lambda x: F.pad(x, (1, 0, 0, 2))),
                Pad("y", "x", ((0, 0), (0, 1), (2, 0), (1, 1))), (None, 4, 8, 9), wide=False),
}

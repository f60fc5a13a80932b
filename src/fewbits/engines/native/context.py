"""A program on its way to native calls: where each value is stored, and the calls so far.

Codes of 8 bits are stored as uint8, signed ones with 128 added; images mostly with their channels last. A form asks
for its
operands in an order of axes and says in which order it writes; transpositions are then orders and move nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from fewbits.kernels import structs
from fewbits.kernels.moves import move_struct
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Int
from fewbits.program import ops as op
from fewbits.program.code_ranges import code_ranges
from fewbits.program.ops import ProgramNode, reads
from fewbits.program.program import Program

Order = tuple[int, ...]
Make = Callable[..., tuple[structs.Call, Any]]
"""From the arrays of what a step reads and of what it writes, the call, and what else it points to."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A value in memory. buffer: its name, or the array itself of what is known beforehand; shape: of the value; order:
    its axes, the outermost in memory first; dtype: as stored; added: to its codes, 128 or 0."""

    buffer: str | np.ndarray
    shape: tuple[int, ...]
    order: Order
    dtype: np.dtype
    added: int = 0

    @property
    def memory(self) -> str | int:
        """What tells whose memory it is: two with the same share it."""
        return self.buffer if isinstance(self.buffer, str) else id(self.buffer)

    @property
    def bytes(self) -> int:
        """How many it takes."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_plain(self) -> bool:
        """Whether it lies in the order of its axes; those of size 1 may be anywhere."""
        moved = [axis for axis in self.order if self.shape[axis] != 1]
        return moved == sorted(moved)

    def view(self, memory: np.ndarray) -> np.ndarray:
        """The value, its axes in their order, in the bytes of its buffer."""
        flat = memory[:self.bytes].view(self.dtype)
        return flat.reshape([self.shape[axis] for axis in self.order]).transpose(np.argsort(self.order))

    def sizes(self, axes: Sequence[int]) -> int:
        """Elements along some axes."""
        return prod(self.shape[axis] for axis in axes)

    def physical(self, array: np.ndarray) -> np.ndarray:
        """A view of its own, contiguous again: its axes as they lie."""
        return array.transpose(self.order)


def plain(rank: int) -> Order:
    """Axes in their own order."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """[N, C, ...] with C innermost."""
    return (0, *range(2, rank), 1)


@dataclass(frozen=True, eq=False)
class Step:
    """A native call, or a function in Python (`fallback`) on the arrays themselves. body: of a recurrence, the steps of
    a turn, whose calls `make` is given in front of the arrays."""

    node: str
    reads: tuple[Stored, ...]
    writes: Stored
    make: Make | None = None
    fallback: Callable[..., None] | None = None
    body: "tuple[Step, ...]" = ()


@dataclass
class Context:
    """One program for inputs of given shapes. packed: weights that other shapes have made already, by node; wanted:
    values that
    must be there in the end; margins: pads that the convolutions which read them make themselves, by name."""

    program: Program
    packed: dict[str, Any]
    wanted: frozenset[str] = frozenset()
    margins: dict[str, op.Pad] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    _made: dict[tuple, Stored] = field(default_factory=dict)

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What is packed under a key, made where no other shapes have made it."""
        if key not in self.packed:
            self.packed[key] = make()
        return self.packed[key]

    # --------------------------------------------------------------------------- what values are

    def encoding(self, name: str) -> Encoding:
        """What the codes of a value mean."""
        return self.program.encoding(name)

    def added(self, name: str) -> int:
        """What storing adds to the codes of a value: 128 to int8, 0 to all else."""
        value = self.program.values.get(name)  # of a float32 output of our own there is none
        encoding = None if value is None else value.encoding
        return 128 if encoding is not None and encoding.format.dtype == np.int8 else 0

    def is_bytes(self, *names: str) -> bool:
        """Whether all are codes of integers of at most 8 bits."""
        return all((encoding := self.program.values[name].encoding) is not None and encoding.format.dtype.itemsize == 1
                   and isinstance(encoding.format, Int) for name in names)

    def are_codes(self, *names: str) -> bool:
        """Whether all are codes of integers that are stored as uint8 or int16."""
        return all((encoding := self.program.values[name].encoding) is not None and isinstance(encoding.format, Int)
                   and encoding.format.dtype in (np.uint8, np.int8, np.int16) for name in names)

    def code_type(self, name: str) -> type:
        """How codes are stored: np.uint8 or np.int16."""
        return np.int16 if self.encoding(name).format.dtype == np.int16 else np.uint8

    def is_integer(self, name: str) -> bool:
        """Whether the codes of a value are evenly spaced."""
        encoding = self.program.values[name].encoding
        return encoding is not None and isinstance(encoding.format, Int)

    def zero(self, name: str) -> int:
        """A zero point as stored."""
        return int(self.encoding(name).zero_point) + self.added(name)

    @cached_property
    def readers(self) -> Mapping[str, Sequence[ProgramNode]]:
        """The nodes that read a value."""
        found: dict[str, list[ProgramNode]] = {}
        for node in self.program.everything:
            for name in reads(node):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def makers(self) -> Mapping[str, ProgramNode]:
        """The node that writes a value."""
        return {node.name: node for node in self.program.everything}

    @cached_property
    def code_ranges(self) -> Mapping[str, tuple[int, int]]:
        """Lowest and highest code of each value."""
        return code_ranges(self.program)

    def threshold(self, name: str) -> op.Threshold | None:
        """The thresholds that are all that reads some sums, so that the sums need not be written."""
        only = self.readers.get(name, ())
        first = only[0] if len(only) == 1 else None
        return first if isinstance(first, op.Threshold) and name not in self.wanted else None

    # --------------------------------------------------------------------------- memory and calls

    def new(self, name: str, shape: Sequence[int], order: Order, dtype: Any) -> Stored:
        """A buffer for what a node writes."""
        return Stored(name, tuple(int(size) for size in shape), order, np.dtype(dtype),
                      self.added(name) if np.dtype(dtype) == np.uint8 else 0)

    def call(self, node: ProgramNode, reads: Sequence[Stored], writes: Stored, make: Make) -> Stored:
        """Appends a native call, unless it writes nothing."""
        if writes.bytes == 0:
            return writes
        self.steps.append(Step(node.name, tuple(reads), writes, make))
        return writes

    def ordered(self, value: Stored, order: Order) -> Stored:
        """The same value in an order of axes: itself, or moved once for all who ask."""
        if [axis for axis in value.order if value.shape[axis] != 1] == [axis for axis in order
                                                                        if value.shape[axis] != 1]:
            return replace(value, order=order)
        key = value.memory, value.shape, value.order, order
        if key not in self._made:
            if isinstance(value.buffer, np.ndarray):
                self._made[key] = constant(value.view(value.buffer.view(np.uint8).reshape(-1)), order, value.added)
            else:
                moved = replace(value, buffer=f"{value.buffer} {value.shape} {value.order} as {order}", order=order)
                if value.bytes:
                    self.steps.append(Step(f"{value.buffer} (moved)", (value,), moved, move))
                self._made[key] = moved
        return self._made[key]


def constant(array: np.ndarray, order: Order, added: int = 0) -> Stored:
    """What is known beforehand, in an order of axes. array: as it is stored."""
    laid = np.ascontiguousarray(array.transpose(order))
    padded = np.zeros(laid.nbytes + structs.BEYOND + 1, np.uint8)
    start = -padded.ctypes.data % 8  # NumPy gives 16 anyway
    padded[start:start + laid.nbytes] = laid.reshape(-1).view(np.uint8)
    return Stored(padded[start:], array.shape, order, array.dtype, added)


def move(x: np.ndarray, y: np.ndarray) -> tuple[structs.Call, Any]:
    """y = x, whatever their orders; y's decides how it is walked."""
    return moved_by(x, y, None), None


def moved_by(x: np.ndarray, y: np.ndarray, table: np.ndarray | None) -> structs.Move:
    """y = table[x], or x."""
    walk = sorted(range(y.ndim), key=lambda axis: -y.strides[axis])
    return move_struct(x.transpose(walk), y.transpose(walk), table)


def through_all_codes(context: Context, node: Any, source: str, function: Callable[[np.ndarray],
                                                                                   np.ndarray]) -> np.ndarray:
    """uint8 [256]: for each code of `source` as it is stored, what a function of codes gives, as that is stored."""
    x = context.encoding(source).format
    stored = np.arange(256) - context.added(source)
    codes = stored.clip(x.low, x.high).astype(x.dtype)
    return (function(codes).astype(np.int64) + context.added(node.name)).astype(np.uint8)


Form = Callable[[Context, Any], Stored | None]
"""From a node, its calls; None where there is none for it, and nothing has been appended."""

Forms = Mapping[type[ProgramNode], Form]

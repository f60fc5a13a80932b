"""What an edge of a program carries, and what an operator may ask of the program it stands in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.program.profile import Profile

Shape = tuple[int | None, ...]
"""None stands where the batch is."""

Dtype = Literal["float32", "int64", "int32", "uint8", "int8", "bool"]
"""Types of values that are no codes: floats, and the integers and truth values of token numbers and masks."""

Kind = Literal["codes", "sums", "float32", "int64", "int32", "uint8", "int8", "bool"]
"""What a value is to the node that reads it: codes of an encoding, the raw sums of a dot product, or plain numbers."""

PLAIN: frozenset[Kind] = frozenset({"float32", "int64", "int32", "uint8", "int8", "bool"})
"""Values without an encoding."""


def taken(shape: Shape, free: tuple[int, ...]) -> Shape:
    """A shape with None in its free axes."""
    return tuple(None if axis in free else size for axis, size in enumerate(shape))


@dataclass(frozen=True)
class Value:
    """An edge of the graph. shape: None where the batch is; encoding: what its codes mean, None for inputs, in float
    islands, which are float32, and for token numbers, positions and masks; free: axes whose size in `shape` is that of
    the network's example, and which may have others when the program runs."""

    shape: Shape
    encoding: Encoding | None
    dtype: Dtype = "float32"
    free: tuple[int, ...] = ()

    @property
    def taken(self) -> Shape:
        """The shape that it may have: None where any size will do."""
        return taken(self.shape, self.free)

    def __str__(self) -> str:
        sizes = "×".join("N" if size is None else f"{size}…" if axis in self.free else str(size)
                         for axis, size in enumerate(self.shape))
        return f"{sizes} {self.encoding or self.dtype}"


class Scope(Protocol):
    """Where a node stands: the values by name and the profile. Programs are such scopes."""

    @property
    def profile(self) -> Profile:
        """Whose integers it computes."""
        ...

    @property
    def values(self) -> Mapping[str, Value]:
        """Every value by name."""
        ...

    def encoding(self, name: str) -> Encoding:
        """What the codes of a value mean. Raises ProgramError for a float value."""
        ...

    def kind(self, name: str) -> Kind:
        """What a value is to the node that reads it."""
        ...

    def is_float(self, name: str) -> bool:
        """Whether a value is float32: an input, or inside a float island."""
        ...

    def is_accumulator(self, name: str) -> bool:
        """Whether a value is the raw sums of its node."""
        ...

    def is_wide(self, name: str) -> bool:
        """Whether a value has codes of more bits than the profile's activations."""
        ...

    def is_constant(self, name: str) -> bool:
        """Whether a value is codes known beforehand."""
        ...

    def constant(self, name: str) -> Quantized:
        """The codes of a constant."""
        ...

    def count(self, name: str, axes: Sequence[int]) -> int:
        """Elements of a value along some axes, none of them the batch."""
        ...

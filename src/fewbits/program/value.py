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


@dataclass(frozen=True)
class Value:
    """An edge of the graph. shape: None where the batch is; encoding: what its codes mean, None for inputs, in float
    islands, which are float32, and for token numbers, positions and masks."""

    shape: Shape
    encoding: Encoding | None
    dtype: Dtype = "float32"

    def __str__(self) -> str:
        sizes = "×".join("N" if s is None else str(s) for s in self.shape)
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

    def is_constant(self, name: str) -> bool:
        """Whether a value is codes known beforehand."""
        ...

    def constant(self, name: str) -> Quantized:
        """The codes of a constant."""
        ...

    def count(self, name: str, axes: Sequence[int]) -> int:
        """Elements of a value along some axes, none of them the batch."""
        ...

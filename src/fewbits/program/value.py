"""What an edge of a program carries, and what an operator may ask of the program it stands in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.program.profile import Profile

Shape = tuple[int | None, ...]
"""None stands where the batch is."""

Kind = Literal["codes", "sums", "float32", "int64"]
"""What a value is to the node that reads it: codes of an encoding, the raw sums of a dot product, or plain numbers."""


@dataclass(frozen=True)
class Value:
    """An edge of the graph. shape: None where the batch is; encoding: what its codes mean, None for inputs and in
    float islands, which are float32, or int64 where an input numbers the rows of an embedding."""

    shape: Shape
    encoding: Encoding | None
    dtype: Literal["float32", "int64"] = "float32"

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

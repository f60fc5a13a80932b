"""What every operator of a program is: a frozen dataclass that reads values by name and writes the value that bears its
own name. The operators themselves, and all that is known of each, are in `ops/`."""

from dataclasses import dataclass

Sizes = tuple[int, ...]  # one per axis behind the channels
Margins = tuple[tuple[int, int], ...]  # (before, after) per axis behind the channels


@dataclass(frozen=True, eq=False)
class ProgramNode:
    """One operation of a program. Abstract: what a program holds is one of `ops.RECORDS`."""

    name: str

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the values it writes, its own first: of most nodes that alone."""
        return (self.name,)

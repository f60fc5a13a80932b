"""Rows of texts and numbers under a head, as aligned text."""

from collections.abc import Sequence
from dataclasses import dataclass

from fewbits.errors import OptionError


@dataclass(frozen=True)
class Table:
    """head: names of the columns; rows: as many cells each; right: which columns are numbers, and stand to the right.
    Printed, an empty line follows."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]

    def __str__(self) -> str:
        widths = [max(len(row[place]) for row in (self.head, *self.rows)) for place in range(len(self.head))]
        lines = ["  ".join(cell.rjust(width) if right else cell.ljust(width)
                           for cell, width, right in zip(row, widths, self.right, strict=True)).rstrip()
                 for row in (self.head, *self.rows)]
        return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:], ""])

    __repr__ = __str__


def table(head: Sequence[str], rows: Sequence[Sequence[object]], digits: int = 4) -> Table:
    """A table; numbers that are not whole are written with so many significant digits, None as an empty cell. Raises
    OptionError for a row of another length than the head.

    >>> print(table(["rounding", "accuracy"], [["nearest", 52.29], ["ceil", 0.1]]))
    rounding  accuracy
    ────────  ────────
    nearest      52.29
    ceil           0.1
    <BLANKLINE>
    """
    if any(len(row) != len(head) for row in rows):
        raise OptionError(f"every row of a table has {len(head)} cells, as its head has")
    numbers = [all(_is_number(row[place]) or row[place] is None for row in rows) for place in range(len(head))]
    return Table(tuple(head), tuple(tuple(_cell(cell, digits) for cell in row) for row in rows), tuple(numbers))


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) or (hasattr(cell, "__float__") and not isinstance(cell, str))


def _cell(cell: object, digits: int) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str | bool | int) or not hasattr(cell, "__float__"):
        return str(cell)
    return f"{float(cell):.{digits}g}"  # pyright: ignore[reportArgumentType]  # it has __float__

"""A Python file of cells in the percent format: `# %%` begins code, `# %% [markdown]` prose in comments."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fewbits.errors import FileError

_HEAD = re.compile(r"^# %%(?P<kind> \[markdown\])?(?P<rest>.*)$")
PARAMETERS = 'tags=["parameters"]'


@dataclass(frozen=True)
class Cell:
    """kind; text: code, or prose without its comment signs; line: where it begins in the file, from 1; settings:
    whether it holds the values that a reader may choose."""

    kind: Literal["code", "markdown"]
    text: str
    line: int
    settings: bool = False


def cells(source: str) -> tuple[Cell, ...]:
    """The cells of a file, empty ones left out. Raises FileError for text before the first cell that is no comment."""
    found: list[Cell] = []
    kind: Literal["code", "markdown"] | None = None
    lines: list[str] = []
    first, settings = 1, False

    def close() -> None:
        text = "\n".join(lines).strip("\n")
        if kind is not None and text.strip():
            found.append(Cell(kind, text, first + next(at for at, line in enumerate(lines) if line.strip()), settings))

    for number, line in enumerate(source.splitlines(), start=1):
        head = _HEAD.match(line)
        if head is not None:
            close()
            kind, lines, first = "markdown" if head["kind"] else "code", [], number + 1
            settings = PARAMETERS in head["rest"]
        elif kind == "markdown":
            lines.append(re.sub(r"^# ?", "", line))
        elif kind == "code":
            lines.append(line)
        elif line.strip() and not line.startswith("#"):
            raise FileError(f"line {number} stands before the first cell: begin it with `# %%`")
    close()
    return tuple(found)


def title(found: tuple[Cell, ...], path: Path) -> str:
    """The first heading."""
    for cell in found:
        if cell.kind == "markdown" and cell.text.startswith("# "):
            return cell.text.splitlines()[0].removeprefix("# ")
    raise FileError(f"{path} has no title: its first prose begins with `# `")

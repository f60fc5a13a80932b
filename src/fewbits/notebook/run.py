"""Cells executed in their order, with what each prints and shows."""

import ast
import contextlib
import io
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewbits.errors import LabError, OptionError
from fewbits.notebook.percent import Cell

Shown = Callable[["Ran"], None]


@dataclass(frozen=True)
class Ran:
    """A cell and what came of it. printed: its text; svg: the picture that its last expression is, if it is one; value:
    the last expression as text, if it is something else; seconds: of wall time."""

    cell: Cell
    printed: str = ""
    svg: str | None = None
    value: str | None = None
    seconds: float = 0.0


def run(cells: tuple[Cell, ...], path: Path, settings: Mapping[str, str] | None = None,
        names: dict[str, Any] | None = None) -> Iterator[Ran]:
    """Executes the cells one by one, as `python FILE` would.

    path: of the file, for error messages; settings: values for names of the settings cell, as text; names: what the
    cells define is put there. Raises OptionError for a setting that the file does not have, LabError for an
    assertion that does not hold, and what else the cells raise.
    """
    wanted = dict(settings or {})
    own: dict[str, Any] = {} if names is None else names
    own |= {"__name__": "__main__", "__file__": str(path)}
    for cell in cells:
        if cell.kind == "markdown":
            yield Ran(cell)
            continue
        started, printed = time.monotonic(), io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                value = _executed(cell, path, own)
        except AssertionError as error:
            raise LabError(_unheld(error, cell, path)) from error
        if cell.settings:
            for name in [name for name in wanted if name in own]:
                own[name] = _as(own[name], name, wanted.pop(name))
            if wanted:
                there = [name for name in own if not name.startswith("_") and not callable(own[name])
                         and isinstance(own[name], str | int | float)]
                raise OptionError(f"{path.stem} has no setting {next(iter(wanted))!r}: choose among {', '.join(there)}")
        svg = getattr(value, "_repr_svg_", None)
        yield Ran(cell, printed.getvalue(), None if svg is None else svg(),
                  None if value is None or svg is not None else str(value), time.monotonic() - started)


def _executed(cell: Cell, path: Path, names: dict[str, Any]) -> Any:
    """Executes a cell; the value of its last statement where that is an expression."""
    tree = ast.increment_lineno(ast.parse(cell.text), cell.line - 1)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, str(path), "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), str(path), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(path), "eval"), names)


def _unheld(error: AssertionError, cell: Cell, path: Path) -> str:
    """Which assertion of a cell failed, and what it says."""
    line = next((frame.lineno for frame in reversed(traceback.extract_tb(error.__traceback__))
                 if frame.filename == str(path) and frame.lineno is not None), cell.line)
    said = f" ({error})" if str(error) else ""
    return f"{path.name}, line {line}: a check does not hold: {cell.text.splitlines()[line - cell.line].strip()}{said}"


def _as(default: Any, name: str, text: str) -> Any:
    """A setting's text in the type of its default."""
    try:
        return type(default)(text)
    except ValueError:
        raise OptionError(f"setting {name} is {type(default).__name__}, such as {default}, not {text!r}") from None

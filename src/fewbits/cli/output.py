"""Where verbs print: a terminal as wide as it is, a pipe without frames, colours or line breaks, or JSON."""

import dataclasses
import math
import sys
from collections.abc import Collection, Mapping
from os import PathLike, fspath
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

_UNWRAPPED = 100_000  # columns: wider than any line


def console(stream: TextIO) -> Console:
    """For people where somebody watches the stream, for other programs where not."""
    return Console(file=stream) if stream.isatty() else _Piped(file=stream, width=_UNWRAPPED, color_system=None)


def silence() -> Console:
    """Prints nothing."""
    return Console(file=sys.stderr, quiet=True)


class _Piped(Console):
    """One line for each row of a table and each sentence, however long."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As of Console, tables without frames and with their title as a line of its own."""
        for each in objects:
            if isinstance(each, Table):
                if each.title:
                    super().print(each.title, soft_wrap=True)
                each.title, each.box, each.pad_edge = None, None, False
                for column in each.columns:
                    column.no_wrap = True
        super().print(*objects, **{**options, "soft_wrap": True})


def as_json(value: object) -> Any:
    """A value as JSON takes it: dataclasses as objects, paths as texts, arrays as lists; what is no finite number is
    null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return as_json(value._asdict())  # pyright: ignore[reportAttributeAccessIssue]  # a named tuple
    if hasattr(value, "tolist"):
        return as_json(value.tolist())  # pyright: ignore[reportAttributeAccessIssue]  # an array, or a number of one
    if isinstance(value, Collection):
        return [as_json(each) for each in value]
    return str(value)

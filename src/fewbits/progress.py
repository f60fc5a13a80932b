"""Progress bars for long work, on standard error, and only where somebody watches."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def track(items: Iterable[T], what: str) -> Iterator[T]:
    """The items, with a bar that says `what` when standard error is a terminal."""
    console = Console(stderr=True)
    yield from rich_track(items, what, console=console, transient=True,
                          disable=not sys.stderr.isatty())

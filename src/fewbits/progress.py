"""Progress of long work, on standard error, and only where somebody watches."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import track as rich_track

T = TypeVar("T")


def watched() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()


def track(items: Iterable[T], what: str) -> Iterator[T]:
    """The items, with a bar that says `what`."""
    yield from rich_track(items, what, console=Console(stderr=True), transient=True, disable=not watched())


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Says `what` while it is done: for work that cannot tell how far it is, and that shows no bar of its own."""
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=Console(stderr=True), transient=True,
                  disable=not watched()) as progress:
        progress.add_task(what, total=None)
        yield


def steps(quiet: bool) -> Progress:
    """A bar that counts steps and shows a text, the field `shown`, behind them. quiet: shows nothing anywhere."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                    TextColumn("{task.fields[shown]}"), TimeRemainingColumn(), console=Console(stderr=True),
                    disable=quiet or not watched())

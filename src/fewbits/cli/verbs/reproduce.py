"""`fewbits reproduce`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Reproduce(Verb):
    """Rerun a published result, and print it beside the published figures."""

    job = "fewbits.cli.reproduce:reproduce"
    examples = ("fewbits reproduce --list", "fewbits reproduce twn-lenet-twn --data mnist:DIR")

    row: Annotated[str | None, typer.Argument(help="Which row; --list names them")] = None
    data: Annotated[str | None, typer.Option(help="The row's data, such as mnist:DIR")] = None
    weights: Annotated[Path | None, typer.Option(help="Float weights, for rows that begin with some")] = None
    seed: Annotated[int, typer.Option(help="Of weights and order; each seed is a record of its own")] = 0
    work: Annotated[Path | None, typer.Option(
        help="A folder for checkpoints: a run that was stopped goes on, and rows share their float networks")] = None
    show: Annotated[bool, typer.Option("--list", help="Print all rows and what was recorded of them")] = False
    records: Annotated[Path | None, typer.Option(
        help="The folder of records; that of fewbits where none is named")] = None
    keep: Annotated[bool, typer.Option("--record", help="Add the result to the records")] = False

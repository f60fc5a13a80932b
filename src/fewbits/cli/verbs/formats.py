"""`fewbits formats`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Formats(Verb):
    """List the number formats, or print the data sheet of one."""

    job = "fewbits.cli.formats:formats"
    examples = ("fewbits formats", "fewbits formats e4m3 --plot e4m3.svg")

    name: Annotated[str | None, typer.Argument(help="A format such as e4m3; all of them when left out.")] = None
    plot: Annotated[Path | None, typer.Option(help="Write its number line to this SVG file.")] = None

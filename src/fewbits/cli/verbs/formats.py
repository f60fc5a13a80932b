"""`fewbits formats`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.verb import Verb
from fewbits.cli.verbs.shared import picture_option


@dataclass(frozen=True, kw_only=True)
class Formats(Verb):
    """List the number formats, or print the data sheet of one."""

    job = "fewbits.cli.formats:formats"
    examples = ("fewbits formats", "fewbits formats e4m3 --plot e4m3.svg", "fewbits formats fp32 --number 0.265625")

    name: Annotated[str | None, typer.Argument(help="A format such as e4m3; all of them when left out.")] = None
    number: Annotated[float | None, typer.Option(
        help="Also show this number in the format: its code, and of a float sign, exponent and fraction")] = None
    staircase: Annotated[Path | None, picture_option(
        "Write Q(x), what each real number becomes, to this SVG file")] = None
    plot: Annotated[Path | None, picture_option("Write its number line to this SVG file.")] = None

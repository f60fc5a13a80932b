"""`fewbits formats`: every number format, or the data sheet of one."""

from pathlib import Path
from typing import Annotated

import typer

from fewbits.errors import FileError
from fewbits.files import write_whole
from fewbits.numerics.catalogue import entry
from fewbits.numerics.datasheet import data_sheet, listing
from fewbits.numerics.number_line import number_line


def formats(
    name: Annotated[str | None, typer.Argument(help="A format such as e4m3; all of them when left out.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write its number line to this SVG file.")] = None,
) -> None:
    """List the number formats, or print the data sheet of one."""
    if name is None:
        if plot is not None:
            raise FileError("--plot draws one format: name it, as in `fewbits formats e4m3 --plot e4m3.svg`")
        typer.echo(listing())
        return
    found = entry(name)
    picture = None if plot is None else number_line(found)
    typer.echo(data_sheet(found))
    if plot is not None and picture is not None:
        if plot.suffix.lower() != ".svg":
            raise FileError(f"{plot} must end in .svg: the number line is an SVG picture")
        write_whole(plot, picture.encode())
        typer.echo(f"\nwrote {plot}")

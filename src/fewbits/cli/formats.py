"""`fewbits formats`: every number format, or the data sheet of one."""

from rich.console import Console

from fewbits.cli.verbs.formats import Formats
from fewbits.errors import FileError
from fewbits.files import write_whole
from fewbits.numerics.catalogue import CATALOGUE, entry
from fewbits.numerics.datasheet import data_sheet, facts, listing
from fewbits.numerics.number_line import number_line


def formats(asked: Formats, console: Console) -> object:
    """The job of the verb."""
    name, plot = asked.name, asked.plot
    if name is None:
        if plot is not None:
            raise FileError("--plot draws one format: name it, as in `fewbits formats e4m3 --plot e4m3.svg`")
        console.print(listing(), highlight=False, markup=False, soft_wrap=True)
        return CATALOGUE
    found = entry(name)
    picture = None if plot is None else number_line(found)
    console.print(data_sheet(found), highlight=False, markup=False, soft_wrap=True)
    if plot is not None and picture is not None:
        if plot.suffix.lower() != ".svg":
            raise FileError(f"{plot} must end in .svg: the number line is an SVG picture")
        write_whole(plot, picture.encode())
        console.print(f"\nwritten: {plot}", highlight=False, markup=False, soft_wrap=True)
    return {"name": found.name, "family": found.family, "about": found.about, **facts(found)}

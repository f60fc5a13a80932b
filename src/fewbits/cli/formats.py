"""`fewbits formats`: every number format, or the data sheet of one."""

import numpy as np
from rich.console import Console

from fewbits.cli.verbs.formats import Formats
from fewbits.errors import OptionError
from fewbits.numerics.catalogue import CATALOGUE, entry
from fewbits.numerics.datasheet import data_sheet, facts, listing, one_number
from fewbits.numerics.number_line import number_line
from fewbits.numerics.staircase import staircase


def formats(asked: Formats, console: Console) -> object:
    """The job of the verb."""
    if asked.name is None:
        for option, value in (("--plot", asked.plot), ("--staircase", asked.staircase), ("--number", asked.number)):
            if value is not None:
                raise OptionError(f"{option} is of one format: name it, as in `fewbits formats e4m3 {option} {value}`")
        console.print(listing(), highlight=False, markup=False, soft_wrap=True)
        return CATALOGUE
    found = entry(asked.name)
    drawn = {path: draw(found) for path, draw in ((asked.plot, number_line), (asked.staircase, staircase))
             if path is not None}
    told: dict[str, object] = {"name": found.name, "family": found.family, "about": found.about, **facts(found)}
    if asked.number is None:
        console.print(data_sheet(found), highlight=False, markup=False, soft_wrap=True)
    else:
        if not np.isfinite(asked.number):
            raise OptionError(f"--number {asked.number} is no finite number: give one such as 0.265625")
        told["number"] = one_number(found.format, asked.number)
        console.print(told["number"], highlight=False, markup=False, soft_wrap=True)
    for path, picture in drawn.items():
        picture.save(path)
        console.print(f"\nwritten: {path}", highlight=False, markup=False, soft_wrap=True)
    return told

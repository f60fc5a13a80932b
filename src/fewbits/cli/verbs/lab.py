"""`fewbits lab`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Lab(Verb):
    """Run one of the labs, which do the exercises of the source lectures and check every number."""

    job = "fewbits.cli.lab:lab"
    examples = ("fewbits lab", "fewbits lab qat --set epochs=2 --out qat.html")

    name: Annotated[str | None, typer.Argument(help="Which lab; without it, they are listed")] = None
    out: Annotated[Path | None, typer.Option(help="Write the lab, run, with its pictures to this HTML file")] = None
    settings: Annotated[list[str] | None, typer.Option(
        "--set", help="A value of the lab's settings cell, such as epochs=20; may be repeated")] = None
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing while it runs")] = False

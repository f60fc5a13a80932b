"""`fewbits lab`."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from fewbits.errors import OptionError
from fewbits.files import read_whole, write_whole
from fewbits.limits import TEXT_BYTES
from fewbits.notebook.labs import lab as file_of
from fewbits.notebook.labs import labs
from fewbits.notebook.page import page
from fewbits.notebook.percent import cells, title
from fewbits.notebook.run import Ran, run


def lab(
    name: Annotated[str | None, typer.Argument(help="Which lab; without it, they are listed")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the lab, run, with its pictures to this HTML file")] = None,
    settings: Annotated[list[str] | None, typer.Option(
        "--set", help="A value of the lab's settings cell, such as epochs=20; may be repeated")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing while it runs")] = False,
) -> None:
    """Run one of the labs, which do the exercises of the source lectures and check every number."""
    console = Console()
    if name is None:
        for known, path in labs().items():
            console.print(f"  {known:<12}{title(cells(path.read_text()), path)}", highlight=False)
        console.print(f"in {os.path.relpath(next(iter(labs().values())).parent)}", highlight=False)
        return
    path = file_of(name)
    source = read_whole(path, TEXT_BYTES, "a lab").decode()
    parts = cells(source)
    started, ran = time.monotonic(), []
    for each in run(parts, path, _settings(settings or [])):
        ran.append(each)
        if not quiet:
            _show(each, console)
    console.print(f"{name}: {sum(each.cell.kind == 'code' for each in ran)} cells ran in "
                  f"{time.monotonic() - started:.1f} s, every check held", highlight=False)
    if out is not None:
        if out.suffix.lower() not in (".html", ".htm"):
            raise OptionError(f"--out {out} must end in .html: the lab is written as a page")
        write_whole(out, page(name, title(parts, path), source, ran, settings or []).encode())
        console.print(f"written: {out}", highlight=False)


def _settings(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"--set {text} names no value: write NAME=VALUE, such as epochs=20")
        found[name] = value
    return found


def _show(ran: Ran, console: Console) -> None:
    if ran.cell.kind == "markdown":
        console.print(Markdown(ran.cell.text))
    for text in (ran.printed.rstrip("\n"), ran.value):
        if text:
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    if ran.svg is not None:
        console.print("(a picture: --out FILE.html shows it)", style="dim", highlight=False)

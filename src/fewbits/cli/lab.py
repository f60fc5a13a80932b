"""`fewbits lab`."""

import os
import time

from rich.console import Console
from rich.markdown import Markdown

from fewbits.cli.verbs.lab import Lab
from fewbits.errors import OptionError
from fewbits.files import read_whole, write_whole
from fewbits.limits import TEXT_BYTES
from fewbits.notebook.labs import lab as file_of
from fewbits.notebook.labs import labs
from fewbits.notebook.page import page
from fewbits.notebook.percent import cells, title
from fewbits.notebook.run import Ran, run


def lab(asked: Lab, console: Console) -> object:
    """The job of the verb."""
    name, out, settings = asked.name, asked.out, asked.settings or []
    if name is None:
        known = {each: title(cells(path.read_text()), path) for each, path in labs().items()}
        for each, told in known.items():
            console.print(f"  {each:<12}{told}", highlight=False)
        console.print(f"in {os.path.relpath(next(iter(labs().values())).parent)}", highlight=False)
        return known
    path = file_of(name)
    source = read_whole(path, TEXT_BYTES, "a lab").decode()
    parts = cells(source)
    started, ran = time.monotonic(), []
    for each in run(parts, path, _settings(settings)):
        ran.append(each)
        if not asked.quiet:
            _show(each, console)
    count = sum(each.cell.kind == "code" for each in ran)
    console.print(f"{name}: {count} cells ran in "
                  f"{time.monotonic() - started:.1f} s, every check held", highlight=False)
    if out is not None:
        if out.suffix.lower() not in (".html", ".htm"):
            raise OptionError(f"--out {out} must end in .html: the lab is written as a page")
        write_whole(out, page(name, title(parts, path), source, ran, settings).encode())
        console.print(f"written: {out}", highlight=False)
    return {"lab": name, "cells": count, "out": out, "printed": [each.printed for each in ran if each.printed]}


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

"""docs/commands.md, made of the verbs: `python -m fewbits.documents.commands > docs/commands.md`."""

import sys
from inspect import Parameter, cleandoc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from fewbits.cli.main import EXIT_CODES
from fewbits.cli.verb import Verb, name_of, options
from fewbits.cli.verbs import ALL

_HEAD = """# The command line

Every verb, with its options. This page is made by `python -m fewbits.documents.commands` of what `--help` shows.

**Networks**: a name (`fewbits quantize nothing` lists them), `mynet.py:MyNet` or `package.module:factory`, a class or
function of no arguments that gives an `nn.Module`, or a `.pt2` file of `torch.export.save`, read as data: nothing in
it is unpickled, evaluated or called.

**Weights**: safetensors, an npz, a state dict in `.pt`, never unpickled code, or what `compress` wrote.

**Data**: `digits` (with the extra `demo`), `mnist:DIR` (idx or npz), `cifar10:DIR`, `images:DIR` (PNG or JPEG with a
csv of labels, or a folder per class), or `npz:FILE` with `train_x, train_y, test_x, test_y`, or just `x, y`. Bytes
are normalised as `--mean`, `--std`, `--divide` and `--bgr` say, else as the network's task does; float32 is taken as
it is. `--label-offset 1` is for networks whose class 0 is the background. The saved file keeps both, so `evaluate`
and `export` need not be told.

**Output.** In a terminal, tables and bars of progress; into a pipe, tables without frames, one line a row, and no
progress. `--json`, which every verb has, prints one object on standard output and nothing else there: `fewbits` (the
version), `verb`, `exit_code`, `warnings`, and `result`, or `error` with `kind` and `message`; numbers that are not
finite are null.

**Exit codes**: {exit_codes}. Bad input gets one sentence that names the thing and the mend; what was on disk stays
whole. Ctrl-C says what was kept; `train --checkpoint`, `search`, `compress --data` and a `--cache` go on from there.
"""


def document() -> str:
    """The page."""
    codes = [line.strip().partition(" ") for line in EXIT_CODES.splitlines()[2:]]
    head = _HEAD.replace("{exit_codes}", "; ".join(f"`{code}` {told.strip()}" for code, _, told in codes))
    return "\n".join([head, *(_verb(verb) for verb in ALL)])


def _verb(verb: type[Verb]) -> str:
    rows = ["| option | default | |", "|---|---|---|"]
    for name, annotation, default in options(verb):
        kind, info = get_args(annotation)[:2]
        told = (info.help or "").replace("|", "\\|")
        rows.append(f"| {_name(name, kind, info)} | {_default(default)} | {told} |")
    examples = "\n".join(verb.examples)
    return "\n".join([f"## {name_of(verb)}\n", cleandoc(verb.__doc__ or ""), "", f"```console\n{examples}\n```\n",
                      *(rows if len(rows) > 2 else []), ""])


def _name(name: str, kind: Any, info: Any) -> str:
    if isinstance(info, typer.models.ArgumentInfo):
        return f"`{name.upper()}`"
    told = (info.default, *(info.param_decls or ()))  # in an annotation the first name stands where a default would
    given = [each for each in told if isinstance(each, str) and each.startswith("-")] or [f"--{name.replace('_', '-')}"]
    words = _words(kind)
    return ", ".join(f"`{each}`" for each in given) + (f" {words}" if words else "")


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    plain = next((each for each in (get_args(kind) or (kind,)) if each is not type(None)), kind)
    return {str: "text", int: "number", float: "number", Path: "path"}.get(plain, "")


def _default(default: Any) -> str:
    if default is Parameter.empty:
        return "needed"
    return "" if default is None or default is False else f"`{default}`"


if __name__ == "__main__":
    sys.stdout.write(document())

"""`fewbits encodings`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fewbits.artifact.file import read
from fewbits.encodings.aimet import read_encodings
from fewbits.encodings.of_program import encodings_of
from fewbits.quant.encoding_table import EncodingTable, TensorEncoding


def encodings(
    file: Annotated[Path, typer.Argument(help="A .fewbits file, or an encodings JSON of AIMET")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Print minimum, maximum, scale and offset of every tensor of a saved model, or of an AIMET encodings file."""
    table = encodings_of(read(file).program) if file.suffix == ".fewbits" else _of_aimet(file)
    console = Console()
    text = json.dumps([asdict(row) for row in table]) if as_json else str(table)
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _of_aimet(file: Path) -> EncodingTable:
    rows = []
    for name, found in read_encodings(file).items():
        levels, pairs = 2**found.bits - 1, list(zip(found.scale, found.offset, strict=True))
        symmetric = all(offset in (-(2 ** (found.bits - 1)), 1 - 2 ** (found.bits - 1)) for offset in found.offset)
        rows.append(TensorEncoding(name, "", found.bits, symmetric, tuple(scale * offset for scale, offset in pairs),
                                   tuple(scale * (offset + levels) for scale, offset in pairs), found.scale,
                                   found.offset))
    return EncodingTable(rows)

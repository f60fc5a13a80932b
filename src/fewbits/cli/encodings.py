"""`fewbits encodings`."""

from pathlib import Path

from rich.console import Console

from fewbits.artifact.file import read
from fewbits.cli.verbs.saved import Encodings
from fewbits.encodings.aimet import read_encodings
from fewbits.encodings.of_program import encodings_of
from fewbits.quant.encoding_table import EncodingTable, TensorEncoding


def encodings(asked: Encodings, console: Console) -> object:
    """The job of the verb."""
    file = asked.file
    table = encodings_of(read(file).program) if file.suffix == ".fewbits" else _of_aimet(file)
    console.print(str(table), highlight=False, markup=False, soft_wrap=True)
    return list(table)


def _of_aimet(file: Path) -> EncodingTable:
    rows = []
    for name, found in read_encodings(file).items():
        levels, pairs = 2**found.bits - 1, list(zip(found.scale, found.offset, strict=True))
        symmetric = all(offset in (-(2 ** (found.bits - 1)), 1 - 2 ** (found.bits - 1)) for offset in found.offset)
        rows.append(TensorEncoding(name, "", found.bits, symmetric, tuple(scale * offset for scale, offset in pairs),
                                   tuple(scale * (offset + levels) for scale, offset in pairs), found.scale,
                                   found.offset))
    return EncodingTable(rows)

"""docs/operators.md, made from the records: `python -m fewbits.documents.operators > docs/operators.md`."""

import sys
from dataclasses import fields

from fewbits.program import ops
from fewbits.program.ops import ProgramNode, Record
from fewbits.program.profile import PROFILES

_KINDS = {"codes": "codes", "sums": "sums", "float32": "floats", "int64": "int64", "int32": "int32",
          "uint8": "uint8", "int8": "int8", "bool": "truth values"}


def document() -> str:
    """The whole page, Markdown."""
    parts = [
        "# Operators of a program",
        "Made from the records in `program/ops/` by `python -m fewbits.documents.operators > docs/operators.md`; a "
        "test fails when it is stale. What each computes, to the bit, stands in [numerics.md](numerics.md); how an "
        "operator is added, in [adding.md](adding.md).",
        "A node reads values by name and writes the value that bears its own. Reads: codes of an encoding, the sums of "
        "a dot product, or plain numbers: float32, integers, truth values. What moves numbers writes the kind that it "
        "reads.",
        *(_family(module, records) for module, records in _families().items()),
        "## What profiles have no definition of",
        _table(("profile", "refused, by name"),
               [(f"`{profile.name}`", ", ".join(profile.lacks) or "nothing") for profile in PROFILES.values()]),
    ]
    return "\n\n".join(parts) + "\n"


def _families() -> dict[str, dict[type[ProgramNode], Record]]:
    found: dict[str, dict[type[ProgramNode], Record]] = {}
    for kind, record in ops.RECORDS.items():
        found.setdefault(kind.__module__, {})[kind] = record
    return found


def _family(module: str, records: dict[type[ProgramNode], Record]) -> str:
    rows = [_row(kind, record) for kind, record in records.items()]
    head = ("operator", "computes", "equations", "fields", "reads", "writes", "sums", "limits")
    said = (sys.modules[module].__doc__ or "").strip()
    return f"## {module.rpartition('.')[2].capitalize()}\n\n{said}\n\n{_table(head, rows)}"


def _row(kind: type[ProgramNode], record: Record) -> tuple[str, ...]:
    reads = ", ".join(words for each, words in _KINDS.items() if each in record.takes) or "nothing"
    writes = {"codes": "codes", "float32": "floats", "moved": "what it reads", "plain": "plain numbers",
              "body": "what its body makes"}[record.writes]
    sums = "" if record.sums is None else "numbers" if record.sums.products is None else "products"
    named = ", ".join(field.name for field in fields(kind) if field.name != "name")
    return f"`{kind.__name__}`", record.does, record.equations, named, reads, writes, sums, ", ".join(record.limits)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.stdout.write(document())

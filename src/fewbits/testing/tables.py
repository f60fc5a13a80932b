"""Whether every table that an operator needs an entry in has it: what docs/adding.md lists, checked."""

from collections.abc import Collection, Mapping
from typing import Any

from fewbits.engines.native import FORMS as NATIVE
from fewbits.engines.torch import KERNELS
from fewbits.graph import operators
from fewbits.lower.rules import RULES
from fewbits.program.ops import RECORDS, ProgramNode
from fewbits.writers.onnx import FORMS

REFUSED: Mapping[str, Mapping[Any, str]] = {"torch kernels (engines/torch)": {}, "ONNX forms (writers/onnx)": {}}
"""Operators that a table leaves out on purpose, and why. Native forms may lack any: those run in torch."""

_COMPUTING = ("dot", "combine", "clamp", "norm")
"""Roles of operators whose result is a node's."""


def check_tables() -> list[str]:
    """What is forgotten, a sentence each: an operator of a program without a record, a torch kernel or an ONNX form, an
    operator of the graph without a lowering rule or a record that computes it, and entries that belong to nothing."""
    kinds = set(ProgramNode.__subclasses__())
    told = _missing("records (program/ops)", RECORDS, {kind for kind in kinds if kind.__module__.startswith("fewbits.")
                                                       or kind in RECORDS})
    for what, table in (("torch kernels (engines/torch)", KERNELS), ("ONNX forms (writers/onnx)", FORMS)):
        told += _missing(what, {*table, *REFUSED[what]}, set(RECORDS))
    told += [f"native forms (engines/native): {_name(kind)} belongs to nothing" for kind in set(NATIVE) - set(RECORDS)]
    names = {row.name for row in operators.OPERATORS}
    told += _missing("lowering rules (lower)", RULES, names)
    computed = {name for record in RECORDS.values() for name in record.computes}
    wanted = {row.name for row in operators.OPERATORS if row.role in _COMPUTING}
    told += [f"the ledger: no record says that it computes {name}" for name in sorted(wanted - computed)]
    return told + [f"records (program/ops): {name} is computed, and no operator of the graph"
                   for name in sorted(computed - names)]


def _missing(what: str, table: Collection[Any], wanted: set[Any]) -> list[str]:
    absent = [f"{what}: {_name(key)} is missing" for key in sorted(wanted - set(table), key=_name)]
    return absent + [f"{what}: {_name(key)} belongs to nothing" for key in sorted(set(table) - wanted, key=_name)]


def _name(key: Any) -> str:
    return key if isinstance(key, str) else key.__name__

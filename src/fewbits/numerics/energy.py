"""Energy and area of arithmetic and memory access at 45 nm, and an energy estimate from operation counts.

The figures are data (costs_45nm.json, beside this file, with their source). An estimate is of the operations
and bytes that the caller counts: it knows no caches, no control and no leakage, and says so (`assumptions`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from fewbits.errors import EncodingError


@dataclass(frozen=True)
class Cost:
    """One operation, or one access of 64 bits. pJ: picojoules (low, high); um2: silicon, None for memory.

    origin: `lecture` where the source documents print it, `paper` where only their source does.
    """

    name: str
    pJ: tuple[float, float]  # noqa: N815  the unit's own spelling
    um2: float | None
    origin: str


@dataclass(frozen=True)
class CostTable:
    """Costs by name, of one process."""

    process: str
    source: str
    operations: Mapping[str, Cost]
    access: Mapping[str, Cost]


@dataclass(frozen=True)
class Work:
    """Work of one layer: operations by name (`multiply int8`: 1e6), bytes read and written."""

    operations: Mapping[str, float]
    bytes: float
    name: str = ""


@dataclass(frozen=True)
class Energy:
    """Picojoules (low, high) of the arithmetic and of the memory, apart; and what was assumed."""

    arithmetic: tuple[float, float]
    memory: tuple[float, float]
    assumptions: tuple[str, ...]

    @property
    def total(self) -> tuple[float, float]:
        """Arithmetic plus memory, picojoules (low, high)."""
        return self.arithmetic[0] + self.memory[0], self.arithmetic[1] + self.memory[1]

    def __str__(self) -> str:
        rows = (("arithmetic", self.arithmetic), ("memory", self.memory), ("together", self.total))
        lines = [f"{name:<11}{_range(pair)}" for name, pair in rows]
        return "\n".join([*lines, "assumed:", *(f"  - {text}" for text in self.assumptions)])


@lru_cache(maxsize=1)
def costs_45nm() -> CostTable:
    """The table for 45 nm at 0.9 V."""
    data = json.loads((resources.files("fewbits.numerics") / "costs_45nm.json").read_text(encoding="utf-8"))
    operations = [Cost(row["name"], (row["pJ"], row["pJ"]), row["um2"], row["origin"]) for row in data["operations"]]
    access = [Cost(row["name"], tuple(row["pJ"]), None, row["origin"]) for row in data["access_64_bit"]]
    return CostTable(data["process"], data["source"], {cost.name: cost for cost in operations},
                     {cost.name: cost for cost in access})


def macs(count: float, format: str) -> dict[str, float]:
    """Operations of `count` multiply-accumulates: `int8` adds in int32, `fp16` and `fp32` in fp32.

    Raises EncodingError for another format: the tables have no figure.
    """
    adds = {"int8": "add int32", "fp16": "add fp32", "fp32": "add fp32"}
    if format not in adds:
        raise EncodingError(f"the 45 nm tables have no multiply of {format}: choose {', '.join(adds)}")
    return {f"multiply {format}": count, adds[format]: count}


def energy(work: Sequence[Work], memory: str = "DRAM", table: CostTable | None = None) -> Energy:
    """Energy of a list of layers: arithmetic and memory apart, in picojoules (low, high).

    memory: where every byte comes from, a row of the table. An access moves 64 bits; a fraction of one counts as that.
    Raises EncodingError for an operation or a memory that the table has not, and for negative counts.
    """
    table = table or costs_45nm()
    if memory not in table.access:
        raise EncodingError(f"no memory is called {memory!r}: choose one of {', '.join(table.access)}")
    arithmetic = [0.0, 0.0]
    total_bytes = 0.0
    for layer in work:
        if layer.bytes < 0 or any(count < 0 for count in layer.operations.values()):
            raise EncodingError(f"the work of {layer.name or 'a layer'} has a negative count")
        total_bytes += layer.bytes
        for name, count in layer.operations.items():
            if name not in table.operations:
                raise EncodingError(f"no operation is called {name!r}: choose one of {', '.join(table.operations)}")
            for end in (0, 1):
                arithmetic[end] += count * table.operations[name].pJ[end]
    low, high = table.access[memory].pJ
    accesses = total_bytes / 8
    return Energy((arithmetic[0], arithmetic[1]), (accesses * low, accesses * high), (
        f"{table.process}; {table.source}",
        f"{total_bytes:g} bytes, all from {memory}, {low:g} to {high:g} pJ for 64 bits, no reuse in caches",
        "no energy of control, clock, idle units or leakage"))


def _range(pair: tuple[float, float]) -> str:
    low, high = (value * 1e-6 for value in pair)
    return f"{low:.4g} µJ" if low == high else f"{low:.4g} to {high:.4g} µJ"

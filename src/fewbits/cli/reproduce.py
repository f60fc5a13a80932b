"""`fewbits reproduce`."""

import time
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from fewbits.cli.verbs.reproduce import Reproduce
from fewbits.data.sets import load
from fewbits.errors import DataError, VerificationError
from fewbits.options import choice
from fewbits.report.machine import this_machine
from fewbits.reproduce.earlier import beside_earlier, fault_of
from fewbits.reproduce.recorded import RECORDS
from fewbits.reproduce.row import Given, Row, RowResult, figures, listed, record, results
from fewbits.reproduce.rows import ROWS
from fewbits.reproduce.stages import BY


def reproduce(asked: Reproduce, console: Console) -> object:
    """The job of the verb."""
    row, data, weights, seed, records = asked.row, asked.data, asked.weights, asked.seed, asked.records or RECORDS
    if asked.show or row is None:
        console.print(_table(records) if console.is_terminal else _lines(records))
        return listed(ROWS.values(), records)
    if row not in ROWS:
        raise DataError(f"there is no row {row!r}: {choice(row, ROWS, 'fewbits reproduce --list')}")
    chosen = ROWS[row]
    if data is None:
        raise DataError(f"{row} needs data: give --data {chosen.data_hint}")
    if (weights is None) != (chosen.weights_hint is None):
        mend = (f"begins with trained weights: give --weights DIR/{chosen.weights_hint}" if weights is None
                else "trains its own network: leave --weights out")
        raise DataError(f"{row} {mend}")
    kind = chosen.data_hint.partition(":")[0]
    if data.partition(":")[0] != kind:
        raise DataError(f"{row} is of {kind}, not of {data}: give --data {chosen.data_hint}")
    start, started = time.monotonic(), time.process_time()
    given = Given(load(data, chosen.shape), seed, weights, asked.work, row)
    measured = chosen.run(given, lambda line: console.print(line, highlight=False))
    result = RowResult(seed, round(time.monotonic() - start, 1), f"{this_machine()}, {torch.get_num_threads()} threads",
                    measured, round(time.process_time() - started, 1))
    for table in _beside(chosen, result):
        console.print(table)
    for line in beside_earlier(result, [one for one in results(records, row) if one.seed == seed]):
        console.print(line, highlight=False)
    if asked.keep:
        record(records, row, result)
    if fault := fault_of(result):
        raise VerificationError(f"{row}: {fault}")
    return {"row": row, "published": dict(chosen.published), **asdict(result)}


def _lines(records: Path) -> Table:
    """One line for each figure of each row, for other programs."""
    table = Table("row", "recipe", "seconds", "figure", "published", "measured, by seed", title=f"records in {records}")
    for name, row in ROWS.items():
        found = results(records, name)
        for figure in figures(row, found) or ("–",):
            measured = [f"{one.seed}: {one.measured[figure]:.2f}" for one in found if figure in one.measured]
            published = f"{row.published[figure]:g}" if figure in row.published else "–"
            table.add_row(name, row.recipe or "–", str(row.seconds), figure, published,
                          ", ".join(measured) or "not run")
    return table


def _table(records: Path) -> Table:
    table = Table("row, source", "recipe, time", "figure", "published", "measured, by seed",
                  title=f"records in {records}", show_lines=True)
    for name, row in ROWS.items():
        found = results(records, name)
        shown = figures(row, found)
        published = [f"{row.published[each]:g}" if each in row.published else "–" for each in shown]
        measured = [", ".join(f"{one.seed}: {one.measured.get(each, float('nan')):.2f}" for one in found) or "–"
                    for each in shown]
        machines = [f"({one})" for one in dict.fromkeys(_short(one.machine) for one in found)]
        table.add_row(f"[b]{name}[/b]\n{row.what}\n[dim]{row.source}[/dim]", f"{row.recipe or '–'}\n{row.seconds} s",
                      "\n".join(shown) or "–", "\n".join(published) or "–", "\n".join(measured + machines) or "not run")
    return table


def _short(machine: str) -> str:
    """A machine without its instruction sets and versions, which `--json` has."""
    return machine.split(" (")[0].split(",")[0]


def _beside(row: Row, result: RowResult) -> list[Table]:
    measured = dict(result.measured)
    tables = [Table("figure", "published", "measured", title=f"{row.name}, seed {result.seed}, {result.seconds} s")]
    for name, make in BY.items():
        if measured.pop(name, None):
            heading, *rows = make([result.measured])
            tables.append(Table(*heading))
            for cells in rows:
                tables[-1].add_row(*cells)
    for figure, value in measured.items():
        published = f"{row.published[figure]:g}" if figure in row.published else ""
        if isinstance(value, int | float):
            tables[0].add_row(figure, published, f"{value:g}")
        else:
            for key, one in value.items():
                tables[0].add_row(f"{figure} {key}", "", str(one))
    return tables

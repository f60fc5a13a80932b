"""docs/reproductions.md, made of the rows and their records: `python -m fewbits.documents.reproductions`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from fewbits.reproduce.recorded import RECORDS
from fewbits.reproduce.row import Row, RowResult, results
from fewbits.reproduce.rows import ROWS
from fewbits.reproduce.stages import BY
from fewbits.reproduce.together import together

_HEAD = """# Reproductions

`fewbits reproduce NAME --data …` runs a row, from float training to the verified program where it has one, and with
`--record` adds the result to the records; `fewbits reproduce --list --json` prints everything that was recorded. A row
that falls short of its source stays with its figure. Figures are percentages of the test images unless their name says
otherwise: means over seeds, and ± their standard deviation where there are several. "few bits" is the network as it was
trained (weight-only methods with float activations), "program" the integers, "float" the same network trained in float
for as long. Tables by layer say what is left in % of four bytes a weight: pruned and shared as the paper counts (gaps
of five bits, codes of whole bits), coded as it stands in the file, entropy as its bound, the paper's in brackets. Most
rows ran while other work filled the machine: compare the processor's seconds. This page is made by
`python -m fewbits.documents.reproductions`.
"""


def document(folder: Path = RECORDS) -> str:
    """The page, of the records in a folder."""
    found = {name: results(folder, name) for name in ROWS}
    return "\n".join([_HEAD, _learned(found), *(_row(row, found[row.name]) for row in ROWS.values())])


def _learned(found: Mapping[str, Sequence[RowResult]]) -> str:
    """The rows that learn in few bits, beside the float network."""
    lines = ["## Learning in few bits, at a glance", "",
             "Accuracy in % (mean ± standard deviation), and few bits minus float, in points; 95 % interval: of the "
             "program minus float, exact, image by image, mean of the seeds' (which err on the same images). (old): "
             "recorded before the row was changed, see there.", "",
             "| row | float | few bits | program | gap | 95 % interval | seeds |", "|---|---|---|---|---|---|---|"]
    for name, each in found.items():
        if each and "few bits" in each[0].measured:
            columns = [_seeds([one.measured[figure] for one in each]) for figure in ("float", "few bits", "program")]
            gap = mean(one.measured["few bits"] - one.measured["float"] for one in each)
            between = {what: f"{low:+.2f} to {high:+.2f}" for what, _, (low, high)
                       in together([one.measured for one in each])}.get("program less float", "–")
            old = " (old)" if any(one.note for one in each) else ""
            lines.append(f"| [{name}](#{name}){old} | {' | '.join(columns)} | {gap:+.2f} | {between} | {len(each)} |")
    return "\n".join([*lines, ""])


def _row(row: Row, found: Sequence[RowResult]) -> str:
    recipe = f" Recipe `{row.recipe}`." if row.recipe else ""
    lines = [f"## {row.name}", "", f"{row.what}. Source: {row.source}.{recipe}", ""]
    if not found:
        return "\n".join([*lines, f"Not run yet; expected to take {row.seconds} s.", ""])
    lines += ["| figure | published | measured |", "|---|---|---|"]
    figures = [name for name, value in found[0].measured.items() if isinstance(value, int | float)]
    for name in figures:
        lines.append(f"| {name} | {row.published.get(name, '')} | {_seeds([one.measured[name] for one in found])} |")
    lines += [f"| {name} | {value} | |" for name, value in row.published.items() if name not in figures]
    for name, make in BY.items():
        if all(one.measured.get(name) for one in found):
            heading, *cells = make([one.measured for one in found])
            lines += ["", f"| {' | '.join(heading)} |", "|" + "---|" * len(heading)]
            lines += [f"| {' | '.join(row)} |" for row in cells]
    for what, points, (low, high) in together([one.measured for one in found]):
        lines += ["", f"{what}: {points:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, mean of the seeds."]
    seconds = "; ".join(f"seed {one.seed}: {_duration(one)}" for one in found)
    machines = "; ".join(dict.fromkeys(one.machine for one in found))
    notes = [f"Not what the row gives now: {note}." for note in dict.fromkeys(one.note for one in found) if note]
    return "\n".join([*lines, "", f"{seconds}. {machines}.", *notes, ""])


def _duration(one: RowResult) -> str:
    of_it = f" ({one.processor_seconds:g} s of the processor)" if one.processor_seconds is not None else ""
    return f"{one.seconds:g} s{of_it}"


def _seeds(values: Sequence[float]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


if __name__ == "__main__":
    sys.stdout.write(document())

"""What the published rows came to here: the records, without running anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import MappingProxyType

from fewbits.reproduce.row import results
from fewbits.reproduce.rows import ROWS

RECORDS = Path(__file__).parent / "records"


@dataclass(frozen=True)
class Recorded:
    """A row. name: as `fewbits reproduce` takes it; published: figures of its source; measured: those of here by name,
    means over the seeds, accuracies and errors in % of the test images; seeds: how many ran, 0 for none."""

    name: str
    what: str
    source: str
    published: Mapping[str, float]
    measured: Mapping[str, float]
    seeds: int


def recorded() -> Mapping[str, Recorded]:
    """What `fewbits reproduce` reran, by the name of the row: what was published, and what was measured."""
    found = {}
    for name, row in ROWS.items():
        runs = results(RECORDS, name)
        figures = [] if not runs else [figure for figure, value in runs[0].measured.items()
                                       if isinstance(value, int | float)]
        measured = {figure: mean(run.measured[figure] for run in runs) for figure in figures}
        found[name] = Recorded(name, row.what, row.source, row.published, MappingProxyType(measured), len(runs))
    return MappingProxyType(found)

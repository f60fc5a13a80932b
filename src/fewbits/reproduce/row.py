"""What a reproduction is, and what is recorded of it."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fewbits.data.split import DataSet
from fewbits.data.weights import apply_weights, load_weights
from fewbits.errors import DataError
from fewbits.files import alone_in, read_whole, write_whole
from fewbits.limits import TEXT_BYTES

Log = Callable[[str], None]


@dataclass(frozen=True)
class Given:
    """What a run works on. weights: a file, for rows that begin with one; work: a folder where trainings leave their
    checkpoints, so that a run that was stopped goes on, and rows that begin with the same float network train it once;
    row: which row it is, for the names of its checkpoints."""

    data: DataSet
    seed: int
    weights: Path | None = None
    work: Path | None = None
    row: str = "row"

    def weights_into(self, net: nn.Module) -> bool:
        """Copies the given weights into a network; False where none are given. Raises DataError as `apply_weights`."""
        if self.weights is None:
            return False
        apply_weights(net, load_weights(self.weights), str(self.weights))
        return True

    def checkpoint(self, stage: str) -> Path | None:
        """The checkpoint of one training of this seed; None without a folder. stage: its name, the same for the same
        training in any row."""
        if self.work is None:
            return None
        self.work.mkdir(parents=True, exist_ok=True)
        return self.work / f"{stage}-seed{self.seed}.checkpoint"


@dataclass(frozen=True)
class Row:
    """One published result. name: as typed; what: one line; source; published: figures of the source, by the names
    under which `run` gives the measured ones; data_hint, weights_hint: what to write after --data and --weights, the
    latter None where a row needs none; run: measured figures, errors or accuracies in % of the test images; recipe:
    a preset's name, or '' where there is none; seconds: expected on 2 idle cores; shape: of one input, for which
    photographs are cut out."""

    name: str
    what: str
    source: str
    published: Mapping[str, float]
    data_hint: str
    run: Callable[[Given, Log], Mapping[str, Any]]
    recipe: str = ""
    seconds: int = 0
    weights_hint: str | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RowResult:
    """One run. seed; seconds: wall clock; machine: processor and threads; measured: as `Row.run` gave it;
    processor_seconds: what it took of the processor, which a busy machine lengthens less; None in old records; note:
    what has changed since, where a record is not what the row gives now."""

    seed: int
    seconds: float
    machine: str
    measured: Mapping[str, Any]
    processor_seconds: float | None = None
    note: str = ""


def results(folder: Path, name: str) -> list[RowResult]:
    """What is recorded of a row, by seed. Raises DataError for a record that does not read."""
    path = folder / f"{name}.json"
    if not os.path.lexists(path):
        return []
    try:
        return [RowResult(**entry) for entry in json.loads(read_whole(path, TEXT_BYTES, "a record of results"))]
    except (ValueError, TypeError, RecursionError):
        raise DataError(f"{path} is no record of results: delete it, and run the row again") from None


def record(folder: Path, name: str, result: RowResult) -> None:
    """Adds a result to a row's record, in place of an earlier one of the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):  # two runs may end at once, and each adds to what is there
        kept = [one for one in results(folder, name) if one.seed != result.seed]
        entries = [asdict(one) for one in sorted([*kept, result], key=lambda one: one.seed)]
        write_whole(folder / f"{name}.json", (json.dumps(entries, indent=1) + "\n").encode())


def figures(row: Row, found: Iterable[RowResult]) -> list[str]:
    """Names of the figures that sum a row up: those its source gives, or the accuracies where it gives none."""
    measured = dict.fromkeys(name for one in found for name in one.measured)
    return list(row.published) or [name for name in ("float", "few bits", "program") if name in measured]


def listed(rows: Iterable[Row], folder: Path) -> list[dict[str, Any]]:
    """All that is known of some rows, as JSON takes it."""
    return [{"name": row.name, "what": row.what, "source": row.source, "published": dict(row.published),
             "recipe": row.recipe, "expected_seconds": row.seconds, "data": row.data_hint, "weights": row.weights_hint,
             "results": [asdict(result) for result in results(folder, row.name)]} for row in rows]

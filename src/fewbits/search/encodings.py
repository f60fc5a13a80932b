"""Encodings of candidates, found when one is asked for: a search whose log is whole asks for none."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fewbits.errors import CalibrationError, DataError
from fewbits.numerics.encoding import Encoding
from fewbits.program.inputs import Batch
from fewbits.quant.cache import digest as digest_of_model
from fewbits.quant.calibrate import calibrate, model_inputs
from fewbits.search.space import Space
from fewbits.storage.digests import digest_of_batches
from fewbits.version import __version__


class Encodings:
    """Of every candidate, and of the tensors that are not searched, on the float network; each is found once.

    calibration: batches that ranges come from, inputs by name. What is found at a time is the candidate of one number
    of every tensor, the last of those that have fewer: the range of an activation may widen the scale of the weights
    that meet it (`Simulation.make_biases_fit`). Raises SearchError as `Space.plan` does, CalibrationError for a batch
    that the model does not take.
    """

    def __init__(self, space: Space, calibration: Iterable[Batch]):
        self._model = space.model
        self._plans = [replace(space.plan(assignment), repairs=()) for assignment in _rows(space)]
        self._searched = frozenset(group.site for group in space.groups)
        self._found: dict[int, Mapping[str, Encoding]] = {}
        self.calibration: Sequence[Batch] = [_bound(space, number, batch) for number, batch in enumerate(calibration)]

    def of(self, site: str, number: int) -> Encoding:
        """Of one candidate of a tensor that is searched."""
        return self._row(number)[site]

    @property
    def fixed(self) -> dict[str, Encoding]:
        """Of the tensors that are not searched, by site: those that they have beside the finest candidates."""
        return {site: encoding for site, encoding in self._row(0).items() if site not in self._searched}

    def find(self, numbers: Collection[int] | None = None) -> None:
        """Finds those of candidates of some numbers, None for all, that were not found before, so that copies of this
        in other processes have them. Raises CalibrationError as `calibrate` does."""
        for number in sorted(range(len(self._plans)) if numbers is None else {0, *numbers}):
            self._row(number)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides them, which is known before any is found: network, plans with their range rules,
        batches, and versions of what works them out. (No range rule draws other numbers than its own seed's.)"""
        versions = f"fewbits {__version__} torch {torch.__version__} numpy {np.__version__}"
        plans = [str(plan) for plan in self._plans]
        parts = [digest_of_model(self._model), digest_of_batches(self.calibration), versions, *plans]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _row(self, number: int) -> Mapping[str, Encoding]:
        if number not in self._found:
            simulation = calibrate(self._model, self._plans[number], self.calibration)
            self._found[number] = {quantizer.site: quantizer.encoding for quantizer in simulation.quantizers()}
        return self._found[number]


def _rows(space: Space) -> list[tuple[int, ...]]:
    """For each number the assignment of that candidate everywhere."""
    counts = [len(group.specs) for group in space.groups]
    return [tuple(min(number, count - 1) for count in counts) for number in range(max(counts))]


def _bound(space: Space, number: int, batch: Any) -> dict[str, torch.Tensor]:
    try:
        return model_inputs(space.model, batch)
    except DataError as error:
        raise CalibrationError(f"batch {number}: {error}") from error

"""Checkpoints of repairs: finished layers on disk, so that a long repair can be resumed."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from fewbits.errors import FileError
from fewbits.numerics.finite import not_finite
from fewbits.optimize.rounding import integer_encoding
from fewbits.quant.simulation import Simulation
from fewbits.storage.checkpoint import Job, read_checkpoint, write_checkpoint
from fewbits.storage.digests import digest_of_batches, digest_of_state


class Checkpoint:
    """Tensors by name, written whole after each addition; without a path, kept nowhere.

    batches: of the job, to be read from here: their digest took a pass, which a one-shot iterator does not give twice.
    """

    def __init__(self, path: Path | None, job: Job, batches: Iterable[Any], tensors: dict[str, torch.Tensor]):
        self._path, self._job, self.batches, self._tensors = path, job, batches, tensors

    @classmethod
    def open(cls, path: str | Path | None, simulation: Simulation, settings: str,
             batches: Iterable[Any]) -> "Checkpoint":
        """What was kept there, or nothing yet. Raises FileError when it is damaged or of another job, by what is other.

        A job is the simulation's plan, parameters and encodings, the settings of the repair, and its data, of which one
        pass is made where there is a path.
        """
        if path is None:
            return cls(None, Job("", {}), batches, {})
        if iter(batches) is batches:
            batches = list(batches)
        job = Job("a repair of weights", {
            "method or settings": settings, "plan": hashlib.sha256(str(simulation.plan).encode()).hexdigest(),
            "model": digest_of_state(simulation.state_dict()), "data": digest_of_batches(batches)})
        path = Path(path)
        if not os.path.lexists(path):
            return cls(path, job, batches, {})
        tensors = read_checkpoint(path, job)
        if not (isinstance(tensors, dict) and all(isinstance(name, str) and isinstance(tensor, torch.Tensor)
                                                  for name, tensor in tensors.items())):
            raise FileError(f"{path} is no checkpoint of a repair: remove it to begin anew")
        return cls(path, job, batches, tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """A tensor that was kept. Raises FileError for one of another shape or type than `like`, or not finite."""
        tensor = self._tensors[name]
        if tensor.shape != like.shape or tensor.dtype != like.dtype or not_finite(tensor):
            raise FileError(f"{self._path} holds for {name!r} what is no {like.dtype} of shape {list(like.shape)}, or "
                            "not finite: remove it to begin anew")
        return tensor

    def codes(self, simulation: Simulation, weight: str) -> torch.Tensor:
        """The kept codes of a weight. Raises FileError where they are none of its format, or not of its shape."""
        format = integer_encoding(simulation, weight).format
        codes = self.take(weight, simulation.model.tensor(weight))
        if not bool(((codes == codes.round()) & (codes >= format.low) & (codes <= format.high)).all()):
            raise FileError(f"{self._path} holds for {weight!r} what are no codes of {format}: remove it to begin anew")
        return codes

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keeps tensors by name and writes the file once."""
        if self._path is not None:
            self._tensors |= {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            write_checkpoint(self._path, self._job, self._tensors)

"""Finished layers on disk, so that a long repair goes on where it was stopped."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fewbits.errors import FileError
from fewbits.files import write_whole
from fewbits.quant.simulation import Simulation


class Checkpoint:
    """Tensors by name, written whole after each addition; without a path, kept nowhere."""

    def __init__(self, path: Path | None, fingerprint: str, tensors: dict[str, torch.Tensor]):
        self._path, self._fingerprint, self._tensors = path, fingerprint, tensors

    @classmethod
    def open(cls, path: str | Path | None, simulation: Simulation, settings: str) -> "Checkpoint":
        """What was kept there, or nothing yet. Raises FileError when it is damaged or of another job.

        A job is the simulation's parameters and grids, and the settings of the repair; the data is the caller's word.
        """
        if path is None:
            return cls(None, "", {})
        path, mark = Path(path), fingerprint(simulation, settings)
        if not path.exists():
            return cls(path, mark, {})
        try:
            tensors = load(path.read_bytes())
        except (SafetensorError, OSError) as error:
            raise FileError(f"{path} is no checkpoint ({error}): remove it to begin anew") from None
        if bytes(tensors.pop("fingerprint", torch.zeros(0)).byte().tolist()).decode(errors="replace") != mark:
            raise FileError(f"{path} is of another model, plan or settings: remove it, or choose another file")
        return cls(path, mark, tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keeps tensors by name and writes the file once."""
        if self._path is not None:
            self._tensors |= {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            mark = torch.tensor(list(self._fingerprint.encode()), dtype=torch.uint8)
            write_whole(self._path, save(self._tensors | {"fingerprint": mark}))


def fingerprint(simulation: Simulation, settings: str) -> str:
    """SHA-256 of the parameters, buffers (grids included), plan and settings."""
    digest = hashlib.sha256(settings.encode())
    digest.update(str(simulation.plan).encode())
    for name, tensor in sorted(simulation.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

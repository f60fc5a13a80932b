"""Calibration data that is one number from end to end: zeros of a loader that failed, a tensor that nobody filled."""

import warnings
from collections.abc import Mapping

import torch

from fewbits.errors import DataWarning


class OneNumberCheck:
    """Watches each float input of a model for a second number."""

    def __init__(self):
        self._only: dict[str, float] = {}
        self._more: set[str] = set()

    def see(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """To be called with each batch, by input name."""
        for name, tensor in inputs.items():
            if name in self._more or not tensor.is_floating_point():
                continue
            low, high = (float(end) for end in tensor.aminmax())
            if low < high or self._only.setdefault(name, low) != low:
                self._more.add(name)

    @property
    def found(self) -> dict[str, float]:
        """The inputs that were one number, with that number."""
        return {name: number for name, number in self._only.items() if name not in self._more}

    def warn(self) -> None:
        """A DataWarning for each of them."""
        for name, number in self.found.items():
            warnings.warn(f"input {name!r} is {number:g} in every place of every calibration batch: ranges found on it "
                          "fit no other data; calibrate on inputs such as the network is for", DataWarning,
                          stacklevel=3)

"""What two simulations are compared by: their bytes, and how far apart their outputs are."""

from collections.abc import Iterable

import torch
from torch import nn

from fewbits.quant.simulation import Simulation


def bytes_of(simulation: Simulation) -> dict[str, bytes]:
    return {name: tensor.detach().contiguous().numpy().tobytes() for name, tensor in simulation.state_dict().items()}


def distance(one: nn.Module, other: nn.Module, batches: list[torch.Tensor]) -> tuple[float, float]:
    """(squared distance of all outputs, squared size of the other's)."""
    distance = size = 0.0
    with torch.no_grad():
        for x in batches:
            for a, b in zip(_tensors(one(x)), _tensors(other(x)), strict=True):
                distance += float((a - b).double().square().sum())
                size += float(b.double().square().sum())
    return distance, size


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    assert not isinstance(items, str) and isinstance(items, Iterable), "outputs are nested tensors"
    return [tensor for item in items for tensor in _tensors(item)]

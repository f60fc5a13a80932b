"""Samples for layer-wise repairs: rows of a layer's inputs, and the sums that the float layer makes of them."""

from dataclasses import dataclass

import torch

from fewbits.optimize.layer import Layer
from fewbits.optimize.rows import draw_places, products, rows
from fewbits.optimize.walk import Stop
from fewbits.quant.simulation import Simulation

_ELEMENTS = 2**24  # of rows kept in memory, each of two streams: 64 MiB


@dataclass(frozen=True, eq=False)
class Evidence:
    """x: float32 [n, groups, K], rows of the simulation's input; reference: those of the float network at the same
    places; target: float32 [n, O], the float layer's sums with bias, before activation; bias: of the layer
    in the simulation, float32 [O] or 0."""

    layer: Layer
    x: torch.Tensor
    reference: torch.Tensor
    target: torch.Tensor
    bias: torch.Tensor

    def outputs(self, matrix: torch.Tensor, which: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """float32 [n, O]: what the layer gives the next one, were its weights `matrix` [groups, O/groups, K]."""
        return self.layer.activate(products(matrix, self.x[which]) + self.bias)

    def error(self, matrix: torch.Tensor) -> float:
        """Mean over rows of the squared distance from the float layer's output, activation included."""
        wanted = self.layer.activate(self.target)
        return float((self.outputs(matrix) - wanted).square().sum(1).double().mean())


def gather(simulation: Simulation, stop: Stop, count: int, generator: torch.Generator) -> Evidence:
    """About `count` rows, equally many from each batch (fewer where memory asks for it)."""
    layer = stop.layer
    weight = simulation.model.tensor(layer.weight).detach()
    original = simulation.reference.tensor(layer.weight).detach()
    kernel = tuple(weight.shape[2:])
    count = min(count, max(1, _ELEMENTS // layer.matrix(weight)[:, 0].numel()))
    each = -(-count // len(stop.simulated))
    seen, expected = [], []
    for old, new in zip(stop.reference, stop.simulated, strict=True):
        places = draw_places(layer, new, kernel, each, generator)
        seen.append(rows(layer, new, kernel, places))
        expected.append(rows(layer, old, kernel, places))
    x, reference = torch.cat(seen), torch.cat(expected)
    target = products(layer.matrix(original), reference)
    first = simulation.reference.graph.by_name[layer.name]
    if first["bias"] is not None:
        target = target + simulation.reference.tensor(first["bias"].name).detach()
    bias = torch.zeros(()) if layer.node["bias"] is None else simulation.model.tensor(layer.node["bias"].name).detach()
    return Evidence(layer, x, reference, target, bias)

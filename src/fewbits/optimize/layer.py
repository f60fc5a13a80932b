"""Layers as repairs see them: a weight matrix per group of channels, and the closing ReLU or clamp."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fewbits.errors import RepairWarning
from fewbits.graph.graph import Node
from fewbits.graph.operators import bounds
from fewbits.quant.simulation import Simulation

_SHOWN = 4  # names of layers in a warning


@dataclass(frozen=True)
class Layer:
    """node: a convolution or linear layer; low, high: of the ReLU or clamp that alone reads it (else infinite)."""

    node: Node
    low: float
    high: float

    @property
    def name(self) -> str:
        """Of the node."""
        return self.node.name

    @property
    def weight(self) -> str:
        """Name of its weight."""
        return self.node["weight"].name

    @property
    def groups(self) -> int:
        """Into how many parts its channels are divided; 1 for linear."""
        return self.node.arguments.get("groups", 1)

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight [O, ...] as a view [groups, O/groups, K]; K: inputs of one sum."""
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def activate(self, x: torch.Tensor) -> torch.Tensor:
        """What the closing clamp makes of sums."""
        return x if math.isinf(self.low) and math.isinf(self.high) else x.clamp(self.low, self.high)


def layers(simulation: Simulation) -> Iterator[Layer]:
    """Every dot product, in running order."""
    graph = simulation.model.graph
    for node in graph.nodes:
        if node.role != "dot":
            continue
        yield Layer(node, *bounds(graph.by_name[simulation.plan.grid(node.name)]))


def warn_of_layers_inside(simulation: Simulation, what: str) -> None:
    """A RepairWarning, naming them, where layers inside of recurrences stay as they are: each runs once a step, and
    repairs take a layer's inputs from one run. what: the repair."""
    graph = simulation.model.graph
    inside = [node.name for node in graph.everything if node.role == "dot" and node.name not in graph.positions]
    if inside:
        warnings.warn(RepairWarning(
            f"{what} leaves the layers inside recurrences as they are ({', '.join(inside[:_SHOWN])}"
            f"{' and more' if inside[_SHOWN:] else ''}): it works on layers that run once"), stacklevel=4)


def coded_layers(simulation: Simulation) -> Iterator[Layer]:
    """Those whose weight has codes, so that its scale and rounding can be chosen; the recipe leaves others in float."""
    return (layer for layer in layers(simulation) if has_codes(simulation, layer.weight))


def has_codes(simulation: Simulation, tensor: str) -> bool:
    """Whether a tensor is quantized, and not left in float."""
    site = simulation.plan.sites.get(tensor)
    return site is not None and site.spec is not None

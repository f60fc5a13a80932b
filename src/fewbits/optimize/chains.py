"""Chains: two layers between which every channel can be rescaled without changing what the model computes.

f(s·x) = s·f(x) for s > 0 holds for ReLU, PReLU and leaky ReLU (whatever their slopes), pooling, spatial means, zero
padding and flattening, so that one layer's outputs may be divided by s when the next one's weights for them are
multiplied. A value with two readers ends a chain, and so do additions, concatenations and clamps with a bound other
than 0.
Source: Nagel et al. 2019, arXiv:1906.04721, §4.1.
"""

import math
from dataclasses import dataclass

import torch

from fewbits.graph.graph import Node
from fewbits.graph.model import Model, Normal
from fewbits.graph.operators import aten, bounds, operator_of, padding_mode, reduced_axes
from fewbits.optimize.layer import users
from fewbits.program.program import leaves


@dataclass(frozen=True)
class Chain:
    """first, second: names of the layers; between: the nodes from one to the other."""

    first: Node
    second: Node
    between: tuple[Node, ...]

    @property
    def through_relu(self) -> bool:
        """Whether exactly a ReLU, and nothing that mixes numbers, stands between."""
        return any(_role(node) == "clamp" for node in self.between)


def chains(model: Model) -> tuple[Chain, ...]:
    """All of them, in running order."""
    readers, outputs, count = model.graph.consumers(), set(leaves(model.graph.structure)), users(model)
    found = []
    for first in model.graph.nodes:
        if not _rescalable(first, count):
            continue
        node, between = first, []
        while len(readers[node.name]) == 1 and node.name not in outputs:
            previous, node = node, readers[node.name][0]
            if _rescalable(node, count):
                if node["input"].name == previous.name and _fits(first, node, previous, model):
                    found.append(Chain(first, node, tuple(between)))
                break
            if not _passes_scales(node, previous, first):
                break
            between.append(node)
    return tuple(found)


def columns(model: Model, chain: Chain) -> torch.Tensor:
    """The second layer's weight as a view [groups, O/groups, channels/group, numbers of a channel]."""
    weight = model.tensor(chain.second["weight"].name)
    groups = chain.second.arguments.get("groups", 1)
    channels = model.tensor(chain.first["weight"].name).shape[0]
    return weight.view(groups, weight.shape[0] // groups, channels // groups, -1)


def rescale(model: Model, chain: Chain, scale: torch.Tensor) -> None:
    """Divides the first layer's outputs by `scale` and multiplies the second's weights for them.

    scale: float64 [channels], positive. What batch norm predicts of the first layer follows.
    """
    with torch.no_grad():
        first = model.tensor(chain.first["weight"].name)
        first.copy_((first.double() / scale.reshape(-1, *[1] * (first.ndim - 1))).to(first.dtype))
        if chain.first["bias"] is not None:
            bias = model.tensor(chain.first["bias"].name)
            bias.copy_((bias.double() / scale).to(bias.dtype))
        second = columns(model, chain)
        factor = scale.reshape(second.shape[0], 1, second.shape[2], 1)
        second.copy_((second.double() * factor).to(second.dtype))
    normal = model.predicted.get(chain.first.name)
    if normal is not None:
        model.predicted[chain.first.name] = Normal(normal.mean / scale, normal.std / scale)


def _role(node: Node) -> str:
    row = operator_of(node)
    return "" if row is None else row.role


def _rescalable(node: Node, count: dict[str, int]) -> bool:
    if _role(node) != "dot" or count[node["weight"].name] > 1:
        return False
    return node["bias"] is None or count[node["bias"].name] == 1


def _passes_scales(node: Node, before: Node, first: Node) -> bool:
    """Whether the node keeps the channels of `first` apart and commutes with their scales."""
    row = operator_of(node)
    if row is None or len(node.refs) != 1:
        return False
    shape = before.shape or ()
    spatial, axes = len(shape) > 2 and row_name(first) == "conv", len(shape) - 2
    match row.name:
        case "clamp":
            return bounds(node) == (0.0, math.inf)
        case "prelu":
            return node["self"].name == before.name
        case "function":
            return node.target is aten.leaky_relu.default
        case "max_pool" | "average_pool" | "adaptive_average_pool":
            return spatial
        case "mean":
            return spatial and set(reduced_axes(node)) == set(range(2, 2 + axes))
        case "pad":
            margins = node["pad" if "pad" in node.arguments else "padding"]
            scales = padding_mode(node) != "constant" or node["value"] in (None, 0, 0.0)
            return spatial and scales and len(margins) <= 2 * axes
        case "reshape":  # a channel's numbers stay together, and no image's rows become inputs of their own
            return spatial and node.shape == (*shape[:1], math.prod(size or 0 for size in shape[1:]))
        case _:
            return row.role == "gone"


def row_name(node: Node) -> str:
    """What recipes call the node's operator."""
    row = operator_of(node)
    return "" if row is None else row.name


def _fits(first: Node, second: Node, before: Node, model: Model) -> bool:
    """Whether the second layer's inputs are the first one's channels, each as often."""
    channels = model.tensor(first["weight"].name).shape[0]
    if row_name(second) == "conv":
        return row_name(first) == "conv"
    inputs = model.tensor(second["weight"].name).shape[1]
    flat = row_name(first) == "linear" or (before.shape is not None and len(before.shape) == 2)
    return flat and inputs % channels == 0

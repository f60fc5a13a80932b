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

from fewbits.graph.graph import Graph, Node
from fewbits.graph.model import Model, Normal
from fewbits.graph.operators import aten, bounds, padding_mode, reduced_axes


@dataclass(frozen=True)
class Chain:
    """first, second: names of the layers; between: the nodes from one to the other."""

    first: Node
    second: Node
    between: tuple[Node, ...]

    @property
    def through_relu(self) -> bool:
        """Whether exactly a ReLU, and nothing that mixes numbers, stands between."""
        return any(node.role == "clamp" for node in self.between)


def chains(model: Model) -> tuple[Chain, ...]:
    """All of them, in running order."""
    graph = model.graph
    found = []
    for first in graph.nodes:
        if not _rescalable(first, graph):
            continue
        node, between = first, []
        while len(graph.consumers[node.name]) == 1 and node.name not in graph.outputs:
            previous, node = node, graph.consumers[node.name][0]
            if _rescalable(node, graph):
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


def _rescalable(node: Node, graph: Graph) -> bool:
    """Whether it is a layer whose weight and bias are its own."""
    return node.role == "dot" and all(len(graph.param_consumers[name]) == 1 for name in node.params)


def _passes_scales(node: Node, before: Node, first: Node) -> bool:
    """Whether the node keeps the channels of `first` apart and commutes with their scales."""
    if len(node.refs) != 1:
        return False
    shape = before.shape or ()
    spatial, axes = len(shape) > 2 and first.op == "conv", len(shape) - 2
    match node.op:
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
            return node.role == "gone"


def _fits(first: Node, second: Node, before: Node, model: Model) -> bool:
    """Whether the second layer's inputs are the first one's channels, each as often."""
    channels = model.tensor(first["weight"].name).shape[0]
    if second.op == "conv":
        return first.op == "conv"
    inputs = model.tensor(second["weight"].name).shape[1]
    flat = first.op == "linear" or (before.shape is not None and len(before.shape) == 2)
    return flat and inputs % channels == 0

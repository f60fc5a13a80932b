"""Batch norm that stays live behind a dot product: which it is, and what it makes of the sums in the end."""

from collections.abc import Mapping

import torch

from fewbits.graph.batch_norm import scale_and_shift
from fewbits.graph.graph import Graph, Node
from fewbits.graph.model import Model
from fewbits.graph.operators import operator_of


def norms_behind(graph: Graph) -> Mapping[str, Node]:
    """The batch norm node behind each dot product that has one, by the dot product's name. In a graph that was
    planned nothing else reads those sums."""
    roles = {node.name: row.role for node in graph.nodes if (row := operator_of(node)) is not None}
    return {node.refs[0]: node for node in graph.nodes
            if roles.get(node.name) == "norm" and roles.get(node.refs[0]) == "dot"}


def affine(model: Model, dot: Node, norm: Node | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(gain, offset), float64 [O]: what is added to and multiplied with the products of one output channel, so that
    the result is gain · products + offset, the layer's own bias and its batch norm included.

    docs/numerics.md, eq. 15. Raises CaptureError as `scale_and_shift` does.
    """
    weight = model.tensor(dot["weight"].name)
    bias = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
    if dot["bias"] is not None:
        bias = model.tensor(dot["bias"].name).detach().double()
    if norm is None:
        return torch.ones_like(bias), bias
    scale, shift = scale_and_shift(model, norm)
    return scale, scale * bias + shift


def channel_axis(dot: Node) -> int:
    """The axis of a dot product's result along which its output channels lie."""
    row = operator_of(dot)
    assert row is not None and dot.shape is not None, "dot products have a row and return one tensor"
    return 1 if row.name == "conv" else len(dot.shape) - 1

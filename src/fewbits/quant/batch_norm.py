"""Batch norm that stays live behind a dot product: which it is, and what it makes of the sums in the end."""

from collections.abc import Mapping

import torch

from fewbits.graph.batch_norm import scale_and_shift
from fewbits.graph.graph import Graph, Node
from fewbits.graph.model import Model
from fewbits.graph.operators import operator_of
from fewbits.program.program import leaves

FARTHEST = 2**31
"""A channel whose offset lies this many steps of its sums away hardly sees its products (eq. 15)."""


def norms_behind(graph: Graph) -> Mapping[str, Node]:
    """The batch norm node that moves into the scale and bias of a dot product, by the dot product's name: it alone
    reads those sums, and its channels are theirs. Any other batch norm is an operator of its own."""
    rows = {node.name: row for node in graph.nodes if (row := operator_of(node)) is not None}
    readers, outputs = graph.consumers(), set(leaves(graph.structure))

    def joins(dot: Node) -> bool:
        row = rows.get(dot.name)
        return (row is not None and row.role == "dot" and dot.name not in outputs and len(readers[dot.name]) == 1
                and (row.name == "conv" or len(dot.shape or ()) == 2))

    followed = {dot.name: readers[dot.name][0] for dot in graph.nodes if joins(dot)}
    return {dot: node for dot, node in followed.items() if (row := rows.get(node.name)) and row.role == "norm"}


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


def is_still(gain: torch.Tensor, offset: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """bool [O]: which channels are constant once lowered (eq. 15), for their offset lies too many steps of their sums
    away, or their gain is 0. scale: float64 [] or [O], of the sums without the gain."""
    return (gain == 0) | (offset.abs() > FARTHEST * scale * gain.abs())


def channel_axis(dot: Node) -> int:
    """The axis of a dot product's result along which its output channels lie."""
    row = operator_of(dot)
    assert row is not None and dot.shape is not None, "dot products have a row and return one tensor"
    return 1 if row.name == "conv" else len(dot.shape) - 1

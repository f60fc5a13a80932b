"""Batch norm that stays live behind a dot product: which it is, and what it makes of the sums in the end."""

import torch

from fewbits.fold.batch_norm import scale_and_shift
from fewbits.graph.graph import Node
from fewbits.graph.model import Model

FARTHEST = 2**31
"""A channel whose offset lies this many steps of its sums away hardly sees its products (eq. 15)."""


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
    assert dot.shape is not None, "dot products return one tensor"
    return 1 if dot.op == "conv" else len(dot.shape) - 1

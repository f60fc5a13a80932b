"""Calls that a graph and a program may hold beside ATen's: what `fold` puts in place of larger operators."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fewbits.errors import ProgramError
from fewbits.program.requantize import NO_DIVISOR


def masked_softmax(x: torch.Tensor, mask: torch.Tensor | None, factor: float) -> torch.Tensor:
    """softmax(factor · x) over the last axis, 0 where the mask is 0. mask: bool, broadcastable to x, or None."""
    x = x * factor
    return (x if mask is None else x.masked_fill(~mask.bool(), -torch.inf)).softmax(-1)


def join(tensors: list[torch.Tensor], dim: int) -> torch.Tensor:
    """torch.cat, a tensor with a batch of 1 standing for every image of the others."""
    batch = max(tensor.shape[0] for tensor in tensors)
    return torch.cat([tensor.expand(batch, *tensor.shape[1:]) for tensor in tensors], dim)


def quotient(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """first / second, a divisor of 0 counting as 2^-64: 0 stays 0, and all else saturates by its sign."""
    return first / torch.where(second == 0, NO_DIVISOR, second)


RELATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le, "eq": operator.eq, "ne": operator.ne}
"""Comparisons by the names that ATen gives them."""


def two_pieces(x: torch.Tensor, relation: str, bound: float, slope: float, offset: float, other_slope: float,
               other_offset: float) -> torch.Tensor:
    """slope · x + offset where x is in `relation` to `bound`, other_slope · x + other_offset elsewhere."""
    if relation not in RELATIONS:
        raise ProgramError(f"{relation!r} is no comparison: choose one of {', '.join(RELATIONS)}")
    return torch.where(RELATIONS[relation](x, bound), _line(x, slope, offset), _line(x, other_slope, other_offset))


def _line(x: torch.Tensor, slope: float, offset: float) -> torch.Tensor:
    return x * slope + offset if slope else torch.full_like(x, offset)

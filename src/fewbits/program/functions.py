"""Calls that a graph and a program may hold beside ATen's: what `fold` puts in place of larger operators."""

import torch

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

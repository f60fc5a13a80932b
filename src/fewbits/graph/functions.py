"""Calls that a graph may hold beside ATen's: what `fold` puts in place of larger operators."""

import torch
import torch.nn.functional as F

from fewbits.program.requantize import NO_DIVISOR


def insert_zeros(x: torch.Tensor, factors: list[int]) -> torch.Tensor:
    """Zeros between neighbours, the first half of a transposed convolution.

    x: [N, C, *sizes]; factors: one per axis behind the channels. Returns [N, C, *((s − 1)·f + 1)].
    """
    sizes = [(size - 1) * factor + 1 for size, factor in zip(x.shape[2:], factors, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *sizes)
    wide[(slice(None), slice(None), *(slice(None, None, factor) for factor in factors))] = x
    return wide


def masked_softmax(x: torch.Tensor, mask: torch.Tensor | None, factor: float) -> torch.Tensor:
    """softmax(factor · x) over the last axis, 0 where the mask is 0. mask: bool, broadcastable to x, or None."""
    x = x * factor
    return (x if mask is None else x.masked_fill(~mask.bool(), -torch.inf)).softmax(-1)


def adaptive_max_pool(x: torch.Tensor, output_size: list[int]) -> torch.Tensor:
    """The largest in each of `output_size` windows per axis behind the channels, without their positions."""
    pool = F.adaptive_max_pool2d if x.ndim == 4 else F.adaptive_max_pool3d
    return pool(x, tuple(output_size))


def quotient(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """first / second, a divisor of 0 counting as 2^-64: 0 stays 0, and all else saturates by its sign."""
    return first / torch.where(second == 0, NO_DIVISOR, second)


def join(tensors: list[torch.Tensor], dim: int) -> torch.Tensor:
    """torch.cat, a tensor with a batch of 1 standing for every image of the others."""
    batch = max(tensor.shape[0] for tensor in tensors)
    return torch.cat([tensor.expand(batch, *tensor.shape[1:]) for tensor in tensors], dim)

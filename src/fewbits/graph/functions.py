"""Calls that a graph may hold beside ATen's: what `fold` puts in place of larger operators."""

import torch

from fewbits.program.functions import join as join
from fewbits.program.functions import masked_softmax as masked_softmax


def insert_zeros(x: torch.Tensor, factors: list[int]) -> torch.Tensor:
    """Zeros between neighbours, the first half of a transposed convolution.

    x: [N, C, *sizes]; factors: one per axis behind the channels. Returns [N, C, *((s − 1)·f + 1)].
    """
    sizes = [(size - 1) * factor + 1 for size, factor in zip(x.shape[2:], factors, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *sizes)
    wide[(slice(None), slice(None), *(slice(None, None, factor) for factor in factors))] = x
    return wide

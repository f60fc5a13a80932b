"""Attention written out in matmul and softmax, so that a quantizer sees each of its tensors."""

import math

from torch import Tensor


def heads(x: Tensor, count: int) -> Tensor:
    """[N, T, count·D] -> [N, count, T, D]."""
    batch, length, width = x.shape
    return x.reshape(batch, length, count, width // count).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
    """softmax(q·kᵀ/√D)·v, heads joined again.

    query, key, value: [N, heads, T, D]; hidden: bool [T, T], True where row may not look at column. Returns
    [N, T, heads·D]. Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
    """
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    if hidden is not None:
        scores = scores.masked_fill(hidden, -math.inf)
    return (scores.softmax(3) @ value).transpose(1, 2).flatten(2)

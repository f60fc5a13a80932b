"""Magnitude pruning: masks, True where a weight stays.

Weights are float tensors of any shape, masks bool of the same shape. Ties are broken by position, so that the number
kept is exact.
"""

import math

import torch
from torch import Tensor

from fewbits.errors import RecipeError


def by_density(weight: Tensor, density: float) -> Tensor:
    """Keeps the round(density · n) greatest in magnitude. Raises RecipeError outside 0 to 1."""
    scores = weight.detach().abs().reshape(-1)
    return _keep(scores, _count(density, scores.numel())).reshape(weight.shape)


def gradual(step: int, begin: int, end: int, density: float, start: float = 1.0) -> float:
    """The density at a step of a cubic schedule: `start` until step `begin`, `density` from step `end` on.
    Source: Zhu and Gupta 2017, arXiv:1710.01878, eq. 1."""
    done = min(max((step - begin) / max(end - begin, 1), 0.0), 1.0)
    return density + (start - density) * (1 - done) ** 3


def _count(density: float, n: int) -> int:
    if not 0 <= density <= 1:
        raise RecipeError(f"a density is a share from 0 to 1, not {density}: 0.1 keeps a tenth")
    return math.floor(density * n + 0.5)


def _keep(scores: Tensor, count: int) -> Tensor:
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.argsort(descending=True, stable=True)[:count]] = True
    return mask

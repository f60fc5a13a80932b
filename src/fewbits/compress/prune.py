"""Which weights to drop: masks, True where a weight stays.

Every function takes weights as tensors of any float type and shape, first axis the output channels, and gives
bool masks of their shapes. Ties are broken by position, so that the number kept is exact.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fewbits.errors import RecipeError


def above(weight: Tensor, threshold: float) -> Tensor:
    """Keeps what is greater in magnitude than `threshold`, in units of the weights."""
    return weight.abs() > threshold


def by_quality(weight: Tensor, quality: float) -> Tensor:
    """Keeps what is greater in magnitude than quality · standard deviation of the layer.
    Source: Han et al. 2015, arXiv:1506.02626, §3."""
    return above(weight, quality * float(weight.float().std(correction=0)))


def by_density(weight: Tensor, density: float) -> Tensor:
    """Keeps the round(density · n) greatest in magnitude. Raises RecipeError outside 0 to 1."""
    scores = weight.detach().abs().reshape(-1)
    return _keep(scores, _count(density, scores.numel())).reshape(weight.shape)


def across(weights: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """Keeps the greatest in magnitude of all layers together, with one threshold for all (a global density)."""
    scores = torch.cat([weight.detach().abs().reshape(-1).float() for weight in weights.values()])
    kept = _keep(scores, _count(density, scores.numel())).split([weight.numel() for weight in weights.values()])
    return {name: mask.reshape(weight.shape)
            for (name, weight), mask in zip(weights.items(), kept, strict=True)}


def n_of_m(weight: Tensor, n: int, m: int) -> Tensor:
    """Keeps the n greatest of every m neighbours along the inputs (2 of 4 for sparse tensor cores).

    Raises RecipeError when a row does not divide into groups of m. Source: Mishra et al. 2021, arXiv:2104.08378.
    """
    rows = weight.detach().abs().reshape(weight.shape[0], -1)
    if not 1 <= n <= m or rows.shape[1] % m:
        raise RecipeError(f"{n} of {m} does not fit rows of {rows.shape[1]} weights: take a width that divides them")
    groups = rows.reshape(-1, m)
    order = groups.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, :n], True)
    return mask.reshape(weight.shape)


def channels(weight: Tensor, density: float, order: float = 1.0) -> Tensor:
    """Keeps whole output channels, those of the greatest norm of that order. Source: Li et al. 2017,
    arXiv:1608.08710 (order 1)."""
    norms = weight.detach().float().reshape(weight.shape[0], -1).norm(p=order, dim=1)
    kept = _keep(norms, _count(density, len(norms)))
    return kept.reshape(-1, *[1] * (weight.ndim - 1)).expand(weight.shape).contiguous()


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

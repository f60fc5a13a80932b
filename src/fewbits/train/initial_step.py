"""Initial step sizes of learned grids: of least squared error, or the paper's.

Source of the paper's: Esser et al. 2020, arXiv:1902.08153 (LSQ), §2.1. The least-squares step of fixed codes and the
codes of a fixed step take turns, as in Lloyd's algorithm (Lloyd 1982, doi:10.1109/TIT.1982.1056489), from the best of
many steps.
"""

from math import sqrt

import torch

_NUMBERS = 2**15  # of a block that are looked at, evenly spread
_SHARES = torch.logspace(-2.5, 0, 48, dtype=torch.float64).tolist()  # of the largest magnitude: what is tried first
_AROUND = torch.logspace(-2.5 / 48, 2.5 / 48, 24, dtype=torch.float64).tolist()  # of the best of those
_TURNS = 20


def paper_step(rows: torch.Tensor, highest: int) -> torch.Tensor:
    """2 · mean |v| / √Q_p of each row. rows: [G, M]; highest: Q_p. Returns [G]."""
    return 2 * rows.abs().mean(1) / sqrt(highest)


def least_squares_step(rows: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """The step s of each row whose numbers s · clip(rint(v / s), low, high) have the least squared error: of 48 steps
    evenly spread in their logarithm and 24 around the best, then to where neither step nor codes alone can lessen it.

    rows: [G, M], of which at most 32 768 of each, evenly spread, are looked at; low ≤ 0 < high. Returns [G] of their
    type; 0 for a row that has no number other than 0 on a side where there are codes.
    """
    stride = -(-rows.shape[1] // _NUMBERS)
    v = rows[:, ::stride].double()
    reach = torch.maximum(v.amax(1) / high, v.amin(1) / low if low else torch.zeros_like(v[:, 0])).clamp(min=0)
    held = reach > 0
    best = torch.where(held, reach, 1.0)
    least = _error(v, best, low, high)
    for shares in (_SHARES, _AROUND):
        middle = best
        for share in shares:
            step = torch.where(held, share * middle, 1.0)
            error = _error(v, step, low, high)
            best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    for _ in range(_TURNS):
        codes = _codes(v, best, low, high)
        squares = codes.square().sum(1)
        best = torch.where(squares > 0, (codes * v).sum(1) / squares.clamp(min=1), best)
    return torch.where(held, best, 0.0).to(rows.dtype)


def _codes(v: torch.Tensor, step: torch.Tensor, low: int, high: int) -> torch.Tensor:
    return (v / step[:, None]).round_().clamp_(low, high)


def _error(v: torch.Tensor, step: torch.Tensor, low: int, high: int) -> torch.Tensor:
    return _codes(v, step, low, high).mul_(step[:, None]).sub_(v).square_().sum(1)

"""Ranges that a few numbers far away stretch, as an attention mask does that was not understood as one.

The scores of an attention lie within a few units; a number that hides, -10000 among them, leaves all of them in one
code, and nothing but the accuracy would tell.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from fewbits.errors import StretchWarning

ORDERS = 50.0
"""A range this many times that of the numbers in it, but for those far away, is reported."""
_EMPTY = 0.9  # of the range, that holds nothing
_DISTINCT = 8  # numbers that share what is left of the codes
_SAMPLE, _BATCHES, _SHOWN = 4096, 2, 3


@dataclass(frozen=True)
class Stretched:
    """A tensor whose numbers lie from low to high, but for some around `far`."""

    site: str
    low: float
    high: float
    far: float

    @property
    def times(self) -> float:
        """How many times the range of the others its own is."""
        return (max(self.high, self.far) - min(self.low, self.far)) / max(self.high - self.low, 1e-30)

    def __str__(self) -> str:
        return f"{self.site!r} ({self.low:.3g} to {self.high:.3g}, and some at {self.far:.3g})"


class StretchWatch:
    """Looks at the first batches of one tensor."""

    def __init__(self, site: str):
        self.site, self.found, self._left = site, None, _BATCHES

    found: Stretched | None
    """The first that was seen."""

    def see(self, x: torch.Tensor) -> None:
        """Shows it a batch of the tensor."""
        if not self._left or self.found is not None or not x.numel():
            return
        self._left -= 1
        flat = x.detach().reshape(-1)
        low, high = flat.aminmax()
        sample = torch.cat([flat[::max(1, flat.numel() // _SAMPLE)], low[None], high[None]]).double()
        self.found = stretched(self.site, sample)


def stretched(site: str, sample: torch.Tensor) -> Stretched | None:
    """What stretches the range of numbers in two clusters, most of its length between them, one of them narrow and of
    many different numbers; None where nothing does."""
    numbers = sample.unique()
    if len(numbers) < _DISTINCT or not bool(torch.isfinite(numbers).all()):
        return None
    gaps = numbers.diff()
    place, whole = int(gaps.argmax()), float(numbers[-1] - numbers[0])
    if float(gaps[place]) < _EMPTY * whole:
        return None
    below, above = numbers[:place + 1], numbers[place + 1:]
    near, away = (above, below) if len(above) >= len(below) else (below, above)
    if len(near) < _DISTINCT or float(near[-1] - near[0]) * ORDERS > whole:
        return None
    return Stretched(site, float(near[0]), float(near[-1]), float(away.median()))


def warn_of_stretching(watches: Iterable[StretchWatch]) -> None:
    """One StretchWarning for all of them, the worst first, where there is any."""
    found = sorted((watch.found for watch in watches if watch.found is not None), key=lambda item: -item.times)
    if not found:
        return
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    warnings.warn(StretchWarning(
        f"a few numbers far from all others stretch the range of {', '.join(map(str, found[:_SHOWN]))}{more}: the "
        "others share few codes. Where such numbers hide places of an attention, the mask was not understood as one: "
        "add it to the scores right in front of softmax, or give it to scaled_dot_product_attention; else clip them, "
        "or give the tensor another range rule"), stacklevel=2)

"""The distinct values of a tensor and their counts, so that work on many numbers is work on few."""

from dataclasses import dataclass

import numpy as np

from fewbits.errors import EncodingError


@dataclass(frozen=True, eq=False)
class Points:
    """values: float64 [n], ascending, none twice; weights: float64 [n], positive; spread: squared error that
    was given up to have so few points (0 when they are exact), in units of the values squared."""

    values: np.ndarray
    weights: np.ndarray
    spread: float = 0.0

    def __len__(self) -> int:
        return len(self.values)


def distinct(values: np.ndarray, weights: np.ndarray | None = None) -> Points:
    """Every value that occurs, with the sum of its weights (1 each when None).

    values: float16, float32 or float64, any shape; bfloat16 comes as float32, whose low halves are then zero.
    Numbers of 16 bits are counted by their bit patterns, which needs no sorting. Raises EncodingError for no
    values, for values that are not finite, or for weights that are not finite, positive and one for each.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    if not flat.size:
        raise EncodingError("no values to cluster: give at least one")
    low, high = float(flat.min()), float(flat.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise EncodingError("values to cluster hold NaN or Inf: mend them first")
    if weights is not None:
        return _merged(flat.astype(np.float64), _checked(weights, flat.size))
    patterns = _patterns(flat)
    if patterns is None:
        ordered = np.sort(flat)
        starts = np.concatenate(([0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1))
        counts = np.diff(starts, append=ordered.size)
        return Points(ordered[starts].astype(np.float64), counts.astype(np.float64))
    counts = np.bincount(patterns, minlength=2**16)
    there = np.flatnonzero(counts)
    numbers = (there.astype(np.uint16).view(np.float16) if flat.dtype == np.float16
               else (there.astype(np.uint32) << 16).view(np.float32))
    return _merged(numbers.astype(np.float64), counts[there].astype(np.float64))


def binned(points: Points, bins: int) -> Points:
    """At most `bins` points: the means of equally wide bins between the least and the greatest value.

    The squared error of any centroids on the points themselves is that on the bins plus at most `spread`,
    and its root differs from the bins' by at most the root of `spread`.
    """
    low, high = points.values[0], points.values[-1]
    at = np.minimum(((points.values - low) * (bins / (high - low))).astype(np.int64), bins - 1)
    starts = np.concatenate(([0], np.flatnonzero(at[1:] != at[:-1]) + 1))
    weights = np.add.reduceat(points.weights, starts)
    # About the bin's first value: the sum of small differences is more exact than the difference of sums.
    which = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(at)))
    offsets = points.values - points.values[starts][which]
    means = np.add.reduceat(points.weights * offsets, starts) / weights
    spread = float((points.weights * (offsets - means[which]) ** 2).sum())
    return Points(points.values[starts] + means, weights, spread)


def _checked(weights: np.ndarray, count: int) -> np.ndarray:
    flat = np.asarray(weights, np.float64).reshape(-1)
    if flat.size != count or not (np.isfinite(flat).all() and (flat > 0).all()):
        raise EncodingError(f"{count} values need {count} finite, positive weights")
    return flat


def _merged(values: np.ndarray, weights: np.ndarray) -> Points:
    unique, where = np.unique(values, return_inverse=True)  # −0.0 and 0.0 become one
    return Points(unique, np.bincount(where, weights=weights, minlength=len(unique)))


def _patterns(flat: np.ndarray) -> np.ndarray | None:
    """uint16 bit patterns of numbers of 16 bits; None for others, or where there are too few to be worth it."""
    if flat.size < 2**16:
        return None
    if flat.dtype == np.float16:
        return flat.view(np.uint16)
    if flat.dtype == np.float32:
        words = flat.view(np.uint32)
        if not (words[:4096] & 0xFFFF).any() and not (words & 0xFFFF).any():
            return (words >> 16).astype(np.uint16)
    return None

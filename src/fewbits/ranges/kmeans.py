"""One-dimensional k-means: the optimum, and Lloyd's iteration from a given start."""

from dataclasses import dataclass

import numpy as np

from fewbits.errors import EncodingError
from fewbits.kernels import partition
from fewbits.ranges.distinct import Points, binned, distinct

EXACT_UP_TO = 65536  # distinct values: all of fp16 or bf16


@dataclass(frozen=True, eq=False)
class Clusters:
    """centroids: float64 [k], ascending; sse: sum of weight · (value − nearest centroid)², in units of the
    values squared; bound: no k centroids have a smaller sse (0 where unknown); rounds: of Lloyd's iteration,
    the last, which changes nothing, included (0 for the optimum)."""

    centroids: np.ndarray
    sse: float
    bound: float = 0.0
    rounds: int = 0

    def __str__(self) -> str:
        return (f"{len(self.centroids)} centroids {self.centroids[0]:.6g} … {self.centroids[-1]:.6g}, "
                f"sse {self.sse:.6g}")


def optimal(values: np.ndarray, k: int, weights: np.ndarray | None = None,
            exact_up_to: int = EXACT_UP_TO) -> Clusters:
    """The k centroids with the least squared error; fewer when there are fewer distinct values.

    values: floats, any shape; weights: how much each counts, of the same size. Exact for up to `exact_up_to`
    distinct values (up to float64 rounding of sums, `kernels/partition.py`), where sse equals bound. With more, the
    values are first put into that many equally wide bins; with S the squared error inside the bins and B the
    optimum of the bins, the sse is at most B + S and no centroids reach less than (√B − √S)², which is `bound`.
    Raises EncodingError for k < 1 and as `distinct` does.
    """
    points = distinct(values, weights)
    few = points if len(points) <= exact_up_to else binned(points, exact_up_to)
    centroids = optimal_points(few, k)
    sse = squared_error(points, centroids)
    if few is points:
        return Clusters(centroids, sse, sse)
    on_bins = squared_error(few, centroids)
    return Clusters(centroids, sse, max(np.sqrt(on_bins) - np.sqrt(few.spread), 0.0) ** 2)


def optimal_points(points: Points, k: int) -> np.ndarray:
    """As `optimal`, for points: the centroids, float64 [at most k], ascending. Raises EncodingError for k < 1."""
    if k < 1:
        raise EncodingError(f"{k} clusters are none: ask for 1 or more")
    if len(points) <= k:
        return points.values.copy()
    # About the median: costs are differences of squares, and most of those are then small.
    middle = points.values[np.searchsorted(np.cumsum(points.weights), points.weights.sum() / 2)]
    sums = partition.prefix_sums(points.values - middle, points.weights)
    return _run_means(points, partition.best_cuts(sums, k))


def lloyd(values: np.ndarray, start: np.ndarray, weights: np.ndarray | None = None,
          rounds: int = 1000) -> Clusters:
    """Assign to the nearest centroid, move each to the mean of its members, until none moves.

    start: float64 [k]; an empty cluster keeps its centroid. At most `rounds` rounds.
    Raises EncodingError for a start that is not finite, and as `distinct` does. Source: Lloyd 1982.
    """
    points = distinct(values, weights)
    centroids = np.sort(np.asarray(start, np.float64).reshape(-1))
    if not (centroids.size and np.isfinite(centroids).all()):
        raise EncodingError("k-means starts from one or more finite centroids")
    count = 0
    while count < rounds:
        count += 1
        labels = nearest(points.values, centroids)
        # Labels of sorted points are sorted: clusters are runs.
        cuts = np.searchsorted(labels, np.arange(len(centroids) + 1))
        moved = centroids.copy()
        full = cuts[1:] > cuts[:-1]
        moved[full] = _run_means(points, np.append(cuts[:-1][full], len(points)))
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return Clusters(centroids, squared_error(points, centroids), rounds=count)


def nearest(values: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Index of the nearest centroid of each value, the lower one of two equally near: int64, shape of values.

    centroids: [k], ascending.
    """
    centroids = np.asarray(centroids, np.float64)
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values, side="left")


def squared_error(points: Points, centroids: np.ndarray) -> float:
    """Sum of weight · (value − nearest centroid)²; what the points gave up (`spread`) is not in it."""
    off = points.values - np.asarray(centroids, np.float64)[nearest(points.values, centroids)]
    return float((points.weights * off * off).sum())


def _run_means(points: Points, cuts: np.ndarray) -> np.ndarray:
    """Means of the runs between cuts, of which none is empty: float64 [runs]."""
    offsets = points.values - points.values[cuts[:-1]].repeat(np.diff(cuts))
    weights = np.add.reduceat(points.weights, cuts[:-1])
    return points.values[cuts[:-1]] + np.add.reduceat(points.weights * offsets, cuts[:-1]) / weights

"""Cutting a sorted line of weighted points into k runs with the least squared error.

The cost of a run is q − s²/w, from its weight w, its sum s and its sum of squares q; each of the three is a difference
of two prefix sums, which are kept as unevaluated pairs high + low so that a far outlier does not drown the rest.
"""

import numpy as np

from fewbits.kernels.library import native

ROWS = 6
"""Rows of a prefix array: weight, sum, sum of squares (high parts), then the low parts."""


def prefix_sums(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 [6, n + 1]: sums over the first i points, each as a pair high + low.

    values: float64 [n], ascending; weights: float64 [n], positive. Source of the low parts: Knuth's exact
    two-sum, TAOCP 2, §4.2.2, Theorem B.
    """
    sums = np.zeros((ROWS, len(values) + 1))
    for row, terms in enumerate((weights, weights * values, weights * values * values)):
        high = np.cumsum(terms)  # one after the other, so the rounding error of each addition can be had exactly
        before = np.concatenate(([0.0], high[:-1]))
        added = high - before
        sums[row, 1:] = high
        sums[row + 3, 1:] = np.cumsum((before - (high - added)) + (terms - added))
    return sums


def run_costs(sums: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Squared error of the runs [begin, end) about their means: float64, units of the values squared.

    begin, end: int64 of one shape (or broadcastable), begin < end.
    """
    weight, total, squares = ((sums[row][end] - sums[row][begin]) + (sums[row + 3][end] - sums[row + 3][begin])
                              for row in range(3))
    return np.maximum(squares - total * total / weight, 0.0)


def best_cuts(sums: np.ndarray, k: int) -> np.ndarray:
    """As `best_cuts_reference`, natively where the library is there."""
    library = native()
    n = sums.shape[1] - 1
    if library is None or n >= 2**31:
        return best_cuts_reference(sums, k)
    assert 1 <= k <= n
    sums = np.ascontiguousarray(sums, np.float64)
    cuts = np.empty(k + 1, np.int64)
    if library.fb_best_cuts(sums.ctypes.data, n, k, cuts.ctypes.data):
        raise MemoryError(f"{k} clusters of {n} points")
    return cuts


def best_cuts_reference(sums: np.ndarray, k: int) -> np.ndarray:
    """The cut of n points into k runs with the least total cost: int64 [k + 1], from 0 to n, ascending.

    sums: of `prefix_sums`; 1 ≤ k ≤ n. Among equal costs the leftmost last cut. O(k n log n) time: the best
    last cut moves right with the end, so the middle end is solved first and halves the candidates of the rest.
    Source: Grønlund et al. 2017, arXiv:1701.07204, §2.2.
    """
    n = sums.shape[1] - 1
    ends = np.arange(n + 1)
    costs = np.full(n + 1, np.inf)
    costs[1:] = run_costs(sums, np.zeros(n, np.int64), ends[1:])
    choices = np.zeros((k, n + 1), np.int32)
    for runs in range(2, k):
        costs, choices[runs - 1] = _one_more_run(sums, costs, runs)
    cuts = np.empty(k + 1, np.int64)
    cuts[0], cuts[k] = 0, n
    if k > 1:
        begins = ends[k - 1:n]
        cuts[k - 1] = begins[np.argmin(costs[begins] + run_costs(sums, begins, np.array(n)))]
    for runs in range(k - 1, 1, -1):
        cuts[runs - 1] = choices[runs - 1, cuts[runs]]
    return cuts


def _one_more_run(sums: np.ndarray, before: np.ndarray, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Least cost of the first j points in `runs` runs, and where the last begins, for every j ≥ runs.

    before: the same for one run less. All middles of one depth are solved at once.
    """
    n = len(before) - 1
    costs, choices = np.full(n + 1, np.inf), np.zeros(n + 1, np.int32)
    first, last = np.array([runs]), np.array([n])  # ends that are still to be solved
    low, high = np.array([runs - 1]), np.array([n - 1])  # where their last run can begin
    while len(first):
        middle = (first + last) // 2
        counts = np.minimum(high, middle - 1) - low + 1
        starts = np.cumsum(counts) - counts
        begins = np.repeat(low - starts, counts) + np.arange(counts.sum())
        candidates = before[begins] + run_costs(sums, begins, np.repeat(middle, counts))
        least = np.minimum.reduceat(candidates, starts)
        hits = np.flatnonzero(candidates == np.repeat(least, counts))
        best = begins[hits[np.searchsorted(hits, starts)]]
        costs[middle], choices[middle] = least, best
        first, last = np.concatenate((first, middle + 1)), np.concatenate((middle - 1, last))
        low, high = np.concatenate((low, best)), np.concatenate((best, high))
        left = first <= last
        first, last, low, high = first[left], last[left], low[left], high[left]
    return costs, choices

"""Initial centroids for Lloyd's iteration (Han, Mao and Dally 2016, arXiv:1510.00149, §3.2; Arthur and
Vassilvitskii 2007).

Each takes values (floats, any shape) and k, and gives float64 [k], ascending.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from fewbits.ranges.kmeans import Clusters, lloyd, optimal

Start = Callable[[np.ndarray, int, int], np.ndarray]
"""(values, k, seed) -> centroids. Only `forgy` and `plus_plus` draw random numbers."""


def forgy(values: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """k of the values, drawn without replacement (with, when there are fewer than k)."""
    flat = np.asarray(values, np.float64).reshape(-1)
    return np.sort(np.random.default_rng(seed).choice(flat, k, replace=flat.size < k))


def density(values: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """The smallest values whose share of all values, itself included, is at least (i + ½)/k."""
    del seed
    at = (np.arange(k) + 0.5) / k
    return np.quantile(np.asarray(values, np.float64), at, method="inverted_cdf")


def linear(values: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """Evenly from the least to the greatest value."""
    del seed
    return np.linspace(float(np.min(values)), float(np.max(values)), k)


def plus_plus(values: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """Each next centroid drawn with probability proportional to the squared distance to the nearest so far."""
    rng = np.random.default_rng(seed)
    flat = np.asarray(values, np.float64).reshape(-1)
    chosen = np.empty(k)
    chosen[0] = rng.choice(flat)
    distance = (flat - chosen[0]) ** 2
    for i in range(1, k):
        total = distance.sum()
        chosen[i] = rng.choice(flat, p=distance / total) if total > 0 else chosen[0]
        distance = np.minimum(distance, (flat - chosen[i]) ** 2)
    return np.sort(chosen)


STARTS: Mapping[str, Start] = MappingProxyType(
    {"random": forgy, "density": density, "linear": linear, "k-means++": plus_plus})
"""By the names the paper gives them."""

Method = Literal["optimal", "linear", "density", "random", "k-means++"]


def clustered(values: np.ndarray, k: int, method: Method = "optimal", seed: int = 0) -> Clusters:
    """k centroids: the optimum, or where Lloyd's iteration ends from one of the `STARTS`. values: floats, any shape;
    seed: of the starts that draw."""
    return optimal(values, k) if method == "optimal" else lloyd(values, STARTS[method](values, k, seed))

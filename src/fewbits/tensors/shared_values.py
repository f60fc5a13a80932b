"""K-means of one tensor: a few values that its elements share."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.given import finite_array, real_numbers
from fewbits.options import arguments_checked
from fewbits.ranges.kmeans import lloyd, nearest, optimal
from fewbits.ranges.kmeans_starts import STARTS


@dataclass(frozen=True, eq=False)
class Codebook:
    """centroids: float64 [k], ascending when made; labels: int64, which of them each element takes, of its shape."""

    centroids: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        centroids, labels = real_numbers(self.centroids), real_numbers(self.labels)
        if centroids.ndim != 1 or centroids.dtype.kind != "f" or not np.isfinite(centroids).all():
            raise EncodingError("the centroids of a codebook are one axis of finite numbers: give such an array")
        if labels.dtype.kind not in "iu" or (labels.size and not 0 <= labels.min() <= labels.max() < len(centroids)):
            raise EncodingError(f"the labels of a codebook are whole numbers from 0 to {len(centroids) - 1}: give such "
                                "an array")

    def decode(self) -> np.ndarray:
        """The elements' values, float64."""
        return self.centroids[self.labels]

    def error(self, x: npt.ArrayLike | torch.Tensor) -> float:
        """Sum of the squared differences from x (the objective of k-means)."""
        return float(np.square(self._checked(x) - self.decode()).sum())

    def refresh(self, x: npt.ArrayLike | torch.Tensor) -> "Codebook":
        """Centroids that are the means of what their members are in x; one without members stays. Source: the On-Device
        AI lab's k-means quantization-aware training."""
        values = self._checked(x)
        return replace(self, centroids=_means(values, self.labels, self.centroids))

    @arguments_checked
    def step(self, gradient: npt.ArrayLike | torch.Tensor, rate: float = 1.0) -> "Codebook":
        """Centroids moved by minus `rate` times the sum of their members' gradients. Source: Han, Mao and Dally 2016,
        arXiv:1510.00149, eq. 3."""
        values = self._checked(gradient)
        sums = np.bincount(self.labels.reshape(-1), values.reshape(-1), len(self.centroids))
        return replace(self, centroids=self.centroids - rate * sums)

    def _checked(self, x: npt.ArrayLike | torch.Tensor) -> np.ndarray:
        values = finite_array(x)
        if values.shape != self.labels.shape:
            raise EncodingError(f"a tensor of shape {list(values.shape)} does not fit labels of "
                                f"{list(self.labels.shape)}")
        return values.astype(np.float64)


@arguments_checked
def kmeans_quantize(x: npt.ArrayLike | torch.Tensor, bits: int, *, start: str = "optimal", seed: int = 0) -> Codebook:
    """2^bits values with the least squared error, and which of them each element of x takes.

    x: any shape. start: `optimal`, the optimum of all clusterings, or where Lloyd's iteration begins: `linear`,
    `density`, `random`, `k-means++`; seed: of the last two. A centroid that its members' rounding cannot tell from 0
    is 0; members that are float32 numbers were rounded to them, in whatever type they come. Raises EncodingError for
    NaN, Inf, no numbers, and a start that is none.
    Source: Han, Mao and Dally 2016, arXiv:1510.00149, §3.

    >>> book = kmeans_quantize([2.09, -0.98, 1.48, 0.09, 0.05, -0.14, -1.08, 2.12], bits=2)
    >>> book.centroids.round(3).tolist()
    [-1.03, 0.0, 1.48, 2.105]
    >>> book.labels.tolist()
    [3, 0, 2, 1, 1, 1, 0, 3]
    """
    values = finite_array(x)
    if seed < 0:
        raise EncodingError(f"a seed is not negative, and {seed} is")
    if bits not in range(1, 17):
        raise EncodingError(f"a codebook has 1 to 16 bits, not {bits}")
    if start != "optimal" and start not in STARTS:
        raise EncodingError(f"k-means has no start called {start!r}: choose optimal, {', '.join(STARTS)}")
    k = 2**bits
    found = optimal(values, k) if start == "optimal" else lloyd(values, STARTS[start](values, k, seed))
    labels = nearest(values, found.centroids)
    with np.errstate(over="ignore"):
        narrow = np.array_equal(values, values.astype(np.float32))
    resolution = float(np.finfo(np.float32 if narrow else np.float64).eps)
    return Codebook(_means(values.astype(np.float64), labels, found.centroids, resolution), labels)


def _means(values: np.ndarray, labels: np.ndarray, before: np.ndarray, resolution: float = 0.0) -> np.ndarray:
    """Means of the members; `before` where there are none, 0 within `resolution` of the largest member."""
    flat, of, k = values.reshape(-1), labels.reshape(-1), len(before)
    counts, sums = np.bincount(of, minlength=k), np.bincount(of, flat, k)
    largest = np.zeros(k)
    np.maximum.at(largest, of, np.abs(flat))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), before)
    return np.where(np.abs(means) <= resolution * largest, 0.0, means)

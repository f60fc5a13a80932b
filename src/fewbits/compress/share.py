"""Weight sharing by k-means: few centroids for many weights; pruned zeros are stored apart."""

from dataclasses import dataclass, replace

import numpy as np

from fewbits.compress.huffman import code_lengths
from fewbits.errors import EncodingError
from fewbits.options import options_checked
from fewbits.ranges.distinct import distinct
from fewbits.ranges.kmeans import nearest
from fewbits.ranges.kmeans_starts import Method, clustered

MOST = 256  # centroids of a group: codes are bytes
_ROUNDS = 100  # of the entropy-constrained iteration; it has usually settled after 30


@dataclass(frozen=True, eq=False)
class Shared:
    """Weights that share values: weight i (row-major) is `centroids[i // group, code]`, or 0 where none is stored.

    shape: of the weights; group: how many neighbours share a codebook (all of them: per layer; those of one output
    channel: per channel); positions: int64 [m], ascending, of the weights that are stored, or None for all;
    codes: uint8 [m]; centroids: float32 [groups, k], each row ascending, in units of the weights.
    """

    shape: tuple[int, ...]
    group: int
    positions: np.ndarray | None
    codes: np.ndarray
    centroids: np.ndarray

    @property
    def size(self) -> int:
        """Weights, the zeros included."""
        return int(np.prod(self.shape, dtype=np.int64))

    def dense(self) -> np.ndarray:
        """The weights: float32, of `shape`."""
        if self.positions is None:
            rows = zip(self.centroids, self.codes.reshape(len(self.centroids), self.group), strict=True)
            return np.concatenate([row[codes] for row, codes in rows] or [self.centroids[:0, 0]]).reshape(self.shape)
        weights = np.zeros(self.size, np.float32)
        weights[self.positions] = self.centroids[self._rows(self.positions), self.codes]
        return weights.reshape(self.shape)

    def table_index(self) -> np.ndarray:
        """int64, of `shape`: the index of each weight in the table [0, centroids row by row]."""
        index = np.zeros(self.size, np.int64)
        at = np.arange(self.size) if self.positions is None else self.positions
        index[at] = 1 + self._rows(at) * self.centroids.shape[1] + self.codes
        return index.reshape(self.shape)

    def with_centroids(self, centroids: np.ndarray) -> "Shared":
        """The same codes for other values (float32 [groups, k]), which need not ascend."""
        return replace(self, centroids=np.asarray(centroids, np.float32).reshape(self.centroids.shape))

    def counts(self) -> np.ndarray:
        """int64 [k]: how often each code occurs, over all groups."""
        return np.bincount(self.codes, minlength=self.centroids.shape[1])

    def _rows(self, at: np.ndarray) -> np.ndarray:
        return at // max(self.group, 1)

    def __str__(self) -> str:
        stored = self.size if self.positions is None else len(self.positions)
        return (f"{list(self.shape)}, {stored} of {self.size} stored, "
                f"{len(self.centroids)} × {self.centroids.shape[1]} centroids")


@options_checked
def share(weight: np.ndarray, k: int, *, mask: np.ndarray | None = None, group: int | None = None,
          method: Method = "optimal", seed: int = 0) -> Shared:
    """k-means of the weights that stay; zeros are no cluster.

    weight: float32 of any shape; mask: bool of that shape, True where a weight is stored; None stores all.
    group: weights in row-major order that share a codebook (None: all); it divides their number. method:
    `optimal`, or what Lloyd's iteration starts from. Raises EncodingError for k outside 1 to 256, a group that does
    not divide, or weights that are not finite. Source: Han, Mao and Dally 2016, arXiv:1510.00149, §3.
    """
    if not 1 <= k <= MOST:
        raise EncodingError(f"codes of one byte choose among 1 to {MOST} centroids, not {k}")
    flat = np.asarray(weight, np.float32).reshape(-1)
    group = flat.size if group is None else group
    if flat.size and (group < 1 or flat.size % group):
        raise EncodingError(f"{flat.size} weights do not divide into groups of {group}: take a divisor")
    positions = None if mask is None else np.flatnonzero(mask)
    at = np.arange(flat.size) if positions is None else positions
    codes = np.zeros(len(at), np.uint8)
    rows = []
    for number in range(flat.size // group if flat.size else 0):
        here = slice(*np.searchsorted(at, [number * group, (number + 1) * group]))
        values = flat[at[here]]
        row = _stored(clustered(values, k, method, seed).centroids) if values.size else np.zeros(1, np.float32)
        codes[here] = nearest(values, row)
        rows.append(row)
    return Shared(tuple(weight.shape), group, positions, codes, _even(rows))


def constrained(weight: np.ndarray, k: int, price: float, *, mask: np.ndarray | None = None) -> Shared:
    """Entropy-constrained k-means of a layer: minimizes Σ (w − centroid)² + price · bits of its code.

    price: squared error that one bit is worth, in units of the weights squared; 0 is plain k-means. Bits are
    −log2 of the code's share while iterating, from the optimal centroids on; unused codes are dropped.
    Raises EncodingError as `share` does. Source: Chou, Lookabaugh and Gray 1989, "Entropy-constrained vector
    quantization"; for weights Choi, El-Khamy and Lee 2017, arXiv:1612.01543.
    """
    plain = share(weight, k, mask=mask)
    flat = np.asarray(weight, np.float64).reshape(-1)
    values = flat if plain.positions is None else flat[plain.positions]
    if not values.size or price <= 0:
        return plain
    points = distinct(values)
    centroids = plain.centroids[0].astype(np.float64)
    shares = np.bincount(plain.codes, minlength=len(centroids)) / values.size
    before, weights = np.inf, shares * values.size
    for _ in range(_ROUNDS):
        used = shares > 0
        centroids, bits = centroids[used], -np.log2(shares[used])
        labels = _cheapest(points.values, centroids, price * bits)
        weights = np.bincount(labels, weights=points.weights, minlength=len(centroids))
        sums = np.bincount(labels, weights=points.weights * points.values, minlength=len(centroids))
        cost = float((points.weights * ((points.values - centroids[labels]) ** 2 + price * bits[labels])).sum())
        centroids = np.where(weights > 0, sums / np.maximum(weights, 1e-300), centroids)
        shares = weights / values.size
        if cost >= before * (1 - 1e-9):
            break
        before = cost
    kept = weights > 0
    # The last step in whole bits of the code that will be written.
    row = _stored(centroids[kept])
    lengths = code_lengths(weights[kept].astype(np.int64)).astype(np.float64)
    if len(row) != len(lengths):  # two centroids became one float32
        return replace(plain, codes=nearest(values, row).astype(np.uint8), centroids=row[None])
    codes = _cheapest(values, row.astype(np.float64), price * lengths).astype(np.uint8)
    return replace(plain, codes=codes, centroids=row[None])


def reassigned(shared: Shared, weight: np.ndarray, price: float) -> Shared:
    """The same centroids, of one group, with each stored weight assigned to the cheapest: least (w − centroid)² +
    price · bits, in whole bits of the Huffman code that the present codes would get.

    weight: float32 of the same shape; price: as for `constrained`. An unused code counts as occurring once.
    """
    flat = np.asarray(weight, np.float64).reshape(-1)
    values = flat if shared.positions is None else flat[shared.positions]
    lengths = code_lengths(np.maximum(shared.counts(), 1)).astype(np.float64)
    codes = _cheapest(values, shared.centroids[0].astype(np.float64), price * lengths)
    return replace(shared, codes=codes.astype(np.uint8))


def refresh(shared: Shared, weight: np.ndarray) -> Shared:
    """Each centroid becomes the mean of its members' new weights; codes stay, and so do unused centroids.

    weight: float32 of the same shape, after a step of training in full precision. Source: the On-Device AI
    lab's k-means quantization-aware training.
    """
    index = shared.table_index().reshape(-1)
    table = np.concatenate(([0.0], shared.centroids.reshape(-1).astype(np.float64)))
    counts = np.bincount(index, minlength=len(table))
    sums = np.bincount(index, weights=np.asarray(weight, np.float64).reshape(-1), minlength=len(table))
    return shared.with_centroids(np.where(counts > 0, sums / np.maximum(counts, 1), table)[1:])


def stored_ratio(n: int, k: int, bits: int = 32) -> float:
    """Bits of n weights over bits of their codes and codebook (arXiv:1510.00149, eq. 1)."""
    return n * bits / (n * int(np.ceil(np.log2(k))) + k * bits)


def _stored(centroids: np.ndarray) -> np.ndarray:
    """Centroids as they are written: float32, ascending, each once."""
    return np.unique(centroids.astype(np.float32))


def _even(rows: list[np.ndarray]) -> np.ndarray:
    """Pads rows to one length by repeating the last centroid; no code refers to the repetitions."""
    width = max((len(row) for row in rows), default=1)
    table = np.zeros((len(rows), width), np.float32)
    for number, row in enumerate(rows):
        table[number] = np.pad(row, (0, width - len(row)), mode="edge")
    return table


def _cheapest(values: np.ndarray, centroids: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """int64: for each value the centroid of the least (value − centroid)² + price; the lower of two equals."""
    best, label = np.full(values.shape, np.inf), np.zeros(values.shape, np.int64)
    for number, (centroid, price) in enumerate(zip(centroids, prices, strict=True)):
        cost = (values - centroid) ** 2 + price
        better = cost < best
        best[better], label[better] = cost[better], number
    return label

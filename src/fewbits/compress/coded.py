"""Shared weights as symbol streams: codes and positions."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fewbits.compress import positions
from fewbits.compress.huffman import code_lengths, entropy
from fewbits.compress.share import Shared
from fewbits.compress.stream import Coded, decode, encode, huffman_bits
from fewbits.kernels.huffman import StreamError
from fewbits.options import options_checked

Order = Literal["all", "zeros", "mask", "fillers", "escapes"]
ORDERS: tuple[Order, ...] = get_args(Order)

_FILLER_LIMITS = tuple(2**bits for bits in range(2, 9))
_ESCAPE_LIMITS = tuple(2**bits - 1 for bits in range(2, 9))


@dataclass(frozen=True, eq=False)
class CodedShared:
    """The streams that store a `Shared`.

    order: how positions are stored. `all`: every weight has a code. `zeros`: also, and code 0 is the number 0, the
    centroids following. `mask`: a bit for each weight. `fillers`, `escapes`: gaps (`compress/positions.py`), whose
    longest is `limit`; a filler's code is 0, the centroids following. stored: weights that have a code of
    their own; places: the mask or the gaps, None for `all` and `zeros`.
    """

    shape: tuple[int, ...]
    group: int
    centroids: np.ndarray
    order: Order
    limit: int
    stored: int
    codes: Coded
    places: Coded | None

    @property
    def fillers(self) -> int:
        """How many codes are zeros that only bridge a gap."""
        return self.codes.count - self.stored if self.order == "fillers" else 0


@options_checked
def code_alphabet(order: Order, centroids: int) -> int:
    """Number of different codes: one more where 0 has a code of its own."""
    return centroids + (order in ("zeros", "fillers"))


@options_checked
def place_alphabet(order: Order, limit: int) -> int:
    """Number of different symbols of the position stream."""
    return {"mask": 2, "fillers": limit, "escapes": limit + 1}[order]


def encode_shared(shared: Shared) -> CodedShared:
    """The order with the fewest Huffman bits, then the smallest coding of each stream."""
    if shared.positions is None:
        return _encode(shared, "all", 0)
    choices: list[tuple[Order, int]] = [("mask", 0), *(("escapes", limit) for limit in _ESCAPE_LIMITS)]
    if shared.centroids.shape[1] < 256:
        choices += [("zeros", 0), *(("fillers", limit) for limit in _FILLER_LIMITS)]
    return _encode(shared, *min(choices, key=lambda choice: _bits(shared, *choice)))


@options_checked
def with_order(shared: Shared, order: Order, limit: int = 0) -> CodedShared:
    """Encodes in a given order, for comparison."""
    return _encode(shared, order, limit)


def decode_shared(coded: CodedShared) -> Shared:
    """Inverse of `encode_shared`. Allocates in proportion to the shape and the counts, which are the caller's to
    bound. Raises StreamError unless the streams are just those of weights of that shape."""
    k = coded.centroids.shape[1]
    size = int(np.prod(coded.shape, dtype=object))
    codes = decode(coded.codes)
    if codes.size and int(codes.max()) >= code_alphabet(coded.order, k):
        raise StreamError("a code has no centroid")
    found: np.ndarray | None = None
    if coded.order == "zeros":
        real = codes > 0
        found, codes = np.flatnonzero(real), codes[real] - np.uint8(1)
    elif coded.order != "all":
        found, codes = _places(coded, codes)
    total = coded.codes.count if coded.order == "zeros" else size
    stored = size if found is None else len(found)
    if total != size or len(codes) != stored or stored != coded.stored:
        raise StreamError("codes and weights differ in number")
    if found is not None and len(found) and int(found[-1]) >= size:
        raise StreamError("a position is behind the last weight")
    return Shared(coded.shape, coded.group, found, codes, coded.centroids)


def bound(coded: CodedShared) -> float:
    """Entropy of codes and positions in bytes: the lower bound of any symbol-by-symbol code."""
    streams = [coded.codes] if coded.places is None else [coded.codes, coded.places]
    return sum(entropy(np.bincount(decode(stream), minlength=1)) for stream in streams) / 8


def filler_bytes(coded: CodedShared) -> int:
    """How many of the code bytes the fillers take, by their code lengths."""
    if not coded.fillers:
        return 0
    size = sum(map(len, coded.codes.streams))
    if coded.codes.coding != "huffman" or coded.codes.per != 1:
        return size * coded.fillers // coded.codes.count
    counts = np.bincount(decode(coded.codes))
    return int(counts[0] * int(code_lengths(counts)[0])) // 8


def _places(coded: CodedShared, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positions, codes without fillers)"""
    assert coded.places is not None
    symbols = decode(coded.places)
    if coded.order == "mask":
        if symbols.size != int(np.prod(coded.shape, dtype=object)):
            raise StreamError("mask and weights differ in number")
        return np.flatnonzero(symbols), codes
    if coded.order == "escapes":
        return positions.from_escapes(symbols, coded.limit), codes
    if symbols.size != codes.size:
        raise StreamError("gaps and codes differ in number")
    real = codes > 0
    return positions.from_fillers(symbols)[real], codes[real] - np.uint8(1)


def _symbols(shared: Shared, order: Order, limit: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(codes, places) as `CodedShared` describes them."""
    if shared.positions is None:
        return shared.codes, None
    if order == "zeros":
        codes = np.zeros(shared.size, np.uint8)
        codes[shared.positions] = shared.codes + 1
        return codes, None
    if order == "mask":
        mask = np.zeros(shared.size, np.uint8)
        mask[shared.positions] = 1
        return shared.codes, mask
    if order == "escapes":
        return shared.codes, positions.escapes(shared.positions, limit)
    gaps, real = positions.fillers(shared.positions, limit)
    codes = np.zeros(gaps.size, np.uint8)
    codes[real] = shared.codes + 1
    return codes, gaps


def _bits(shared: Shared, order: Order, limit: int) -> int:
    codes, places = _symbols(shared, order, limit)
    bits = huffman_bits(codes, code_alphabet(order, shared.centroids.shape[1]))
    return bits if places is None else bits + huffman_bits(places, place_alphabet(order, limit))


def _encode(shared: Shared, order: Order, limit: int) -> CodedShared:
    codes, places = _symbols(shared, order, limit)
    stored = shared.size if shared.positions is None else len(shared.positions)
    return CodedShared(
        shared.shape, shared.group, shared.centroids, order, limit, stored,
        encode(codes, code_alphabet(order, shared.centroids.shape[1])),
        None if places is None else encode(places, place_alphabet(order, limit)))

"""Large arrays in pieces that fit the cache: long chains of operations then need no memory of their own."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import torch

PIECE = 1 << 17
"""Elements of a piece: half a megabyte of float32."""

Index = tuple[slice, ...]


def pieces(shape: Sequence[int], most: int = PIECE) -> Iterator[Index]:
    """Indices that cut an array of `shape` into parts of at most `most` elements, in order."""
    if not shape:
        yield ()
        return
    row = 1
    for length in shape[1:]:
        row *= length
    rows = most // row if row else shape[0]
    if rows >= 1:
        for start in range(0, shape[0], rows):
            yield (slice(start, start + rows),)
        return
    for start in range(shape[0]):
        for rest in pieces(shape[1:], most):
            yield (slice(start, start + 1), *rest)


def matching(index: Index, shape: Sequence[int]) -> Index:
    """The index of the same part of an array that is broadcast from `shape`: its axes of length 1 stay whole."""
    return tuple(slice(None) if length == 1 else part for part, length in zip(index, shape, strict=False))


def each_piece(shape: Sequence[int], work: Callable[[Index], None]) -> None:
    """Do `work` on every piece, on as many threads as torch uses; the pieces must not depend on each other."""
    parts = list(pieces(shape))
    threads = min(torch.get_num_threads(), len(parts))
    if threads <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, parts))

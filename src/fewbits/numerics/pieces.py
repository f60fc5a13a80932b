"""Work on large arrays in chunks that fit the cache, so that chains of operations need no large temporaries."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import EllipsisType

import torch

PIECE = 1 << 17
"""Elements of a chunk: half a megabyte of float32."""

Index = tuple[slice | EllipsisType, ...]
"""Ends in an ellipsis, so that indexing gives an array also where no axis is left."""


def pieces(shape: Sequence[int], most: int = PIECE) -> Iterator[Index]:
    """Indices that cut an array of `shape` into chunks of at most `most` elements, in order."""
    if not shape:
        yield (...,)
        return
    row = 1
    for length in shape[1:]:
        row *= length
    rows = most // row if row else shape[0]
    if rows >= 1:
        for start in range(0, shape[0], rows):
            yield (slice(start, start + rows), ...)
        return
    for start in range(shape[0]):
        for rest in pieces(shape[1:], most):
            yield (slice(start, start + 1), *rest)


def matching(index: Index, shape: Sequence[int]) -> Index:
    """The index of the same chunk in an array that broadcasts to `shape`: its axes of length 1 stay whole."""
    own = (slice(None) if length == 1 else part for part, length in zip(index[:-1], shape, strict=False))
    return (*own, ...)


def each_piece(shape: Sequence[int], work: Callable[[Sequence[Index]], None]) -> None:
    """Run `work` on all chunks, on as many threads as torch uses; chunks must be independent."""
    parts = list(pieces(shape))
    threads = max(1, min(torch.get_num_threads(), len(parts)))
    if threads == 1:
        work(parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [parts[first::threads] for first in range(threads)]))

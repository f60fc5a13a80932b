"""Canonical, length-limited Huffman codes: built from counts, defined by their lengths alone."""

import numpy as np

from fewbits.kernels.huffman import MAX_LENGTH, TABLE


def code_lengths(counts: np.ndarray, limit: int = MAX_LENGTH) -> np.ndarray:
    """Lengths in bits of an optimal prefix code, none above `limit`: uint8 [n], 0 where the count is 0.

    counts: int64 [n], at most 2^limit of them positive. A single symbol gets one bit. Package-merge: of all
    codes whose lengths respect the limit, none takes fewer bits. Source: Larmore and Hirschberg 1990.
    """
    there = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    if len(there) == 1:
        lengths[there] = 1
        return lengths
    # An item is its count and how often each symbol is in it.
    coins = sorted(((int(counts[symbol]), (int(symbol),)) for symbol in there), key=lambda item: item[0])
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(limit):
        merged = sorted(coins + packages, key=lambda item: item[0])
        packages = [(left[0] + right[0], left[1] + right[1])
                    for left, right in zip(merged[::2], merged[1::2], strict=False)]
    for _, symbols in packages[:len(there) - 1]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


def is_complete(lengths: np.ndarray) -> bool:
    """Whether the lengths are those of a prefix code without unused bit patterns: Kraft's sum is 1."""
    used = lengths[lengths > 0].astype(np.int64)
    return bool(len(used) > 1 and used.max() <= MAX_LENGTH and (TABLE >> used).sum() == TABLE)


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """uint16 [n]: the codes, first bit least significant. Shorter codes are smaller numbers, and among equal
    lengths lower symbols are. Source: Schwartz and Kallick 1964; DEFLATE, RFC 1951, §3.2.2."""
    codes = np.zeros(len(lengths), np.uint16)
    code = before = 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        length = int(lengths[symbol])
        if length:
            code <<= length - before
            codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
            before, code = length, code + 1
    return codes


def decoding_table(lengths: np.ndarray) -> np.ndarray:
    """uint16 [TABLE]: for every MAX_LENGTH bits, length · 256 + symbol of the code they begin with.

    lengths: uint8 [at most 256], of a complete code.
    """
    table = np.zeros(TABLE, np.uint16)
    codes = canonical_codes(lengths)
    for symbol in np.flatnonzero(lengths):
        length = int(lengths[symbol])
        table[codes[symbol]::1 << length] = length << 8 | symbol
    return table


def entropy(counts: np.ndarray) -> float:
    """Entropy in bits of symbols with these counts: −Σ count · log2(count / n)."""
    used = counts[counts > 0].astype(np.float64)
    return float((used * (np.log2(used.sum()) - np.log2(used))).sum()) if used.size else 0.0

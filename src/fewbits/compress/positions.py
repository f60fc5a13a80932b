"""Positions of non-zero weights as small symbols (relative indices).

A gap is the distance from one position to the next, the first counted from −1. With `limit` the longest gap that one
symbol can express:

    fillers   symbol gap − 1 below `limit`; a longer gap is a filler, a zero that is stored like a number, at every
              `limit`th place (Han, Mao and Dally 2016, arXiv:1510.00149, §2, Fig. 2)
    escapes   symbol gap − 1 below `limit`; symbol `limit` says "`limit` further", and stores no number
"""

import numpy as np

from fewbits.kernels.huffman import StreamError


def fillers(positions: np.ndarray, limit: int, before: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [m] symbols, bool [m]: which are no filler). positions: int64, ascending; before: what the first
    gap is counted from; limit: 1 to 256."""
    jumps, rest = np.divmod(_gaps(positions, before) - 1, limit)
    ends = np.cumsum(jumps + 1) - 1
    size = int(ends[-1]) + 1 if len(ends) else 0
    symbols, real = np.full(size, limit - 1, np.uint8), np.zeros(size, bool)
    symbols[ends], real[ends] = rest, True
    return symbols, real


def from_fillers(symbols: np.ndarray, before: int = -1) -> np.ndarray:
    """int64 [m]: the positions of all symbols, fillers included."""
    return np.cumsum(symbols.astype(np.int64) + 1) + before


def escapes(positions: np.ndarray, limit: int, before: int = -1) -> np.ndarray:
    """uint8 [m] symbols of 0 to limit. As `fillers`, but limit: 1 to 255."""
    jumps, rest = np.divmod(_gaps(positions, before) - 1, limit)
    ends = np.cumsum(jumps + 1) - 1
    symbols = np.full(int(ends[-1]) + 1 if len(ends) else 0, limit, np.uint8)
    symbols[ends] = rest
    return symbols


def from_escapes(symbols: np.ndarray, limit: int, before: int = -1) -> np.ndarray:
    """int64: the positions. Raises StreamError when the last symbol is an escape."""
    if symbols.size and symbols[-1] == limit:
        raise StreamError("the last gap does not end")
    ends = symbols != limit
    return (np.cumsum(symbols.astype(np.int64) + ends) + before)[ends]


def _gaps(positions: np.ndarray, before: int) -> np.ndarray:
    return np.diff(positions, prepend=before)

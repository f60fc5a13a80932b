"""Running calls of the native kernels: checked, with scratch, from arrays of NumPy."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from fewbits.errors import KernelError
from fewbits.kernels import structs
from fewbits.kernels.library import native

WHY = ("", "a pointer that must be there is null", "a size is not positive, or too large",
       "a type, kind or layout that it does not take, or weights that were packed for another level or layer",
       "a zero point, bound, shift, scale or row number out of range", "too little scratch")
"""What the library answers, fewbits.h."""

_ALIGNED = 64


def aligned(shape: int | tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    """An array of zeros whose first byte lies at a multiple of 64, with 64 bytes behind it that may be read."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 2 * _ALIGNED, np.uint8)
    start = -raw.ctypes.data % _ALIGNED
    return raw[start:start + size].view(dtype).reshape(shape)


def refuse(answer: int, call: object) -> None:
    """Raises KernelError for an answer of the library that is not 0."""
    if answer:
        why = WHY[answer] if 0 < answer < len(WHY) else f"answer {answer}"
        raise KernelError(f"the native kernels refuse a {type(call).__name__}: {why}")


class Calls:
    """Calls to be run one behind the other, again and again; their arrays must live as long.

    Every call is checked once, here; raises KernelError where one is refused, or there is no library. `keep`: arrays
    that the calls point to, kept alive; threads: at most so many share a call.
    """

    def __init__(self, calls: Sequence[structs.Call], keep: Sequence[Any] = (), threads: int = 1):
        library = native()
        if library is None:
            raise KernelError("there is no native library: python -m fewbits.kernels.build makes it")
        self._run, self._keep, self._calls = library.fb_run, tuple(keep), tuple(calls)
        scratch = 0
        for call in calls:
            needed = library.fb_scratch(ctypes.addressof(call), threads)
            refuse(-min(needed, 0), call)
            scratch = max(scratch, needed)
        self.scratch = aligned(scratch)
        self._pointers = (ctypes.c_void_p * max(len(calls), 1))(*map(ctypes.addressof, calls))
        self._batch = structs.Batch(ctypes.addressof(self._pointers), len(calls), self.scratch.ctypes.data, scratch, 0,
                                    threads, 1)
        self._address = ctypes.addressof(self._batch)

    def run(self) -> None:
        """Runs them all. Raises KernelError for numbers of rows that are not there, and NaN or Inf where a range is
        found."""
        answer = self._run(self._address)
        if answer:
            refuse(answer, self._calls[self._batch.failed])


def run(call: structs.Call, threads: int = 1) -> None:
    """Runs one call, whose arrays the caller holds."""
    Calls([call], threads=threads).run()


def address(array: np.ndarray | None) -> int | None:
    """Where its first byte lies; None for none. The array must be contiguous."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.ctypes.data

"""Calls that run once for each step of a sequence: call Repeat of the native kernels (native/fewbits.h)."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewbits.kernels import structs


@dataclass(frozen=True, eq=False)
class Copied:
    """What each turn copies: `source` to `target` at the first, views [rows, ...] of one shape whose rows have no gaps;
    at every further turn from so many bytes further, and to so many."""

    source: np.ndarray
    target: np.ndarray
    source_turn: int = 0
    target_turn: int = 0

    def struct(self) -> structs.Slice:
        """For the library."""
        rows = len(self.source)
        assert self.source.shape == self.target.shape and self.source.dtype == self.target.dtype
        assert all(rows == 0 or each[0].flags.c_contiguous for each in (self.source, self.target))
        return structs.Slice(self.source.ctypes.data, self.target.ctypes.data, rows,
                             self.source[0].nbytes if rows else 0, self.source.strides[0], self.target.strides[0],
                             self.source_turn, self.target_turn)


def repeat_struct(calls: Sequence[structs.Call], before: Sequence[Copied], after: Sequence[Copied],
                  turns: int) -> tuple[structs.Repeat, Any]:
    """The call, and what it points to beside the calls' own arrays."""
    pointers = (ctypes.c_void_p * max(len(calls), 1))(*map(ctypes.addressof, calls))
    copied = [(structs.Slice * max(len(some), 1))(*(each.struct() for each in some)) for some in (before, after)]
    call = structs.Repeat(
        op=structs.REPEAT, calls=ctypes.addressof(pointers), before=ctypes.addressof(copied[0]),
        after=ctypes.addressof(copied[1]), count=len(calls), before_count=len(before), after_count=len(after),
        turns=turns)
    return call, (tuple(calls), pointers, copied, tuple(before), tuple(after))

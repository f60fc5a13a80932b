"""Calls of the native kernels that nobody may make: each must come back as an error, none may crash.

A random call that is right (kernel_calls.py) is spoiled in one field: a null array, a size that is not positive or far
too large, a number that is no operation, type or kind. What cannot be seen from a call, an array that is shorter than
its sizes say, is left to those who fill it in.
"""

import ctypes
from collections.abc import Iterator, Mapping

import numpy as np

from fewbits.kernels import structs
from fewbits.kernels.library import native
from fewbits.testing.kernel_calls import Case

ARRAYS = {"x", "y", "a", "b", "codes", "calls"}
"""Arrays that every call which has them needs."""
SIZES = {"batch", "height", "width", "channels", "out_channels", "groups", "kernel_h", "kernel_w", "stride_h",
         "stride_w", "dilation_h", "dilation_w", "batches", "rows", "depth", "columns", "count", "inner", "outer",
         "length", "axes", "source", "group", "turns"}
"""What counts something, and is at least 1."""
_NONE = (0, -1, -(2**31))
_FAR = 2**62


def spoiled(case: Case) -> Iterator[tuple[str, int]]:
    """What was spoiled, and what the library answers to the check of the call: below 0 for an error."""
    library = native()
    assert library is not None
    y = np.zeros(case.wanted.size, case.wanted.dtype).reshape(case.wanted.shape)
    call, keep = case.make(y)
    right = bytes(call)
    assert library.fb_scratch(ctypes.addressof(call), 1) >= 0, f"{case.what} is refused"
    for place, field, values in _ways(call):
        for value in values:
            owner = call
            for name in place:
                owner = getattr(owner, name)
            setattr(owner, field, value)
            yield f"{case.what}: {'.'.join((*place, field))} = {value}", library.fb_scratch(ctypes.addressof(call), 1)
            ctypes.memmove(ctypes.addressof(call), right, len(right))
    del keep


def _ways(call: ctypes.Structure, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, tuple]]:
    """Fields of a call and of its parts, and values that make each wrong."""
    kinds: Mapping[str, type] = dict(call._fields_)  # type: ignore[arg-type]
    for name, kind in kinds.items():
        if issubclass(kind, ctypes.Structure):
            if not isinstance(getattr(call, name), structs.Rescale):
                yield from _ways(getattr(call, name), (*place, name))
            else:
                yield (*place, name), "kind", (-1, 7, 2**31 - 1)
                yield (*place, name), "type", (-1, 17, 2**31 - 1)
        elif name == "op" and not place:
            yield place, name, (0, -1, 19, 2**31 - 1)
        elif kind is ctypes.c_void_p and name in ARRAYS:
            yield place, name, (None,)
        elif name in SIZES and not (name == "inner" and isinstance(call, structs.Table) and call.rows == 1):  # not read
            yield place, name, (*_NONE, *((_FAR,) if kind is ctypes.c_int64 else ()))

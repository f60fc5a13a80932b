"""Codes that only move: calls Move and Rows of the native kernels (native/fewbits.h); NumPy's own views are their
definition."""

import numpy as np

from fewbits.kernels import structs
from fewbits.kernels.calls import address
from fewbits.kernels.elementwise import together


def move_struct(x: np.ndarray, y: np.ndarray, table: np.ndarray | None = None) -> structs.Move:
    """y[...] = x, or table[x]: any two views of one shape and one item size; x may repeat by steps of 0."""
    assert x.shape == y.shape and x.itemsize == y.itemsize
    sizes, steps_x, steps_y = together(x.shape, x, y)
    call = structs.Move(op=structs.MOVE, item=x.itemsize, x=x.ctypes.data, y=y.ctypes.data, table=address(table),
                        axes=len(sizes))
    call.sizes[:len(sizes)], call.step_x[:len(sizes)], call.step_y[:len(sizes)] = sizes, steps_x, steps_y
    return call


def rows_struct(x: np.ndarray, numbers: np.ndarray, y: np.ndarray) -> structs.Rows:
    """y = x[:, numbers]. x: [outer, source, inner]; numbers: int64 [count]; y: [outer, count, inner]."""
    outer, source, inner = x.shape
    return structs.Rows(op=structs.ROWS, item=x.itemsize, x=address(x), y=address(y), numbers=address(numbers),
                        outer=outer,
                        source=source, count=numbers.size, inner=inner)

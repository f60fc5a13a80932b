"""The calls of the native kernels, field by field as native/fewbits.h has them, which says what each one means."""

import ctypes

import numpy as np

U8, S16, S32, F32, S8 = range(5)
"""Types of codes and numbers."""

CODES = {np.dtype(np.uint8): U8, np.dtype(np.int16): S16}
"""Types of codes, by that of the array which holds them."""

SUMS, FLOAT, DOUBLE, SINGLE, WIDE, REAL, LEVELS = range(7)
"""How exact integers become what is written."""

ADD, SUBTRACT, ADD_FMA, MULTIPLY, MAXIMUM, MINIMUM, LOOKED_UP = range(7)
"""Kinds of Pair."""

PLAIN, PACKED, FEW = range(3)
"""Layouts of weights."""

AXES = 6
"""The most axes of a call that broadcasts or moves."""

BEYOND = 63
"""Bytes behind its codes that a convolution may read where it is told that they are there."""

(CONV, MATMUL, PAIR, TABLE, POOL, MEAN, SOFTMAX, NORM, QUANTIZE, DEQUANTIZE, MOVE, ROWS, THRESHOLD, DYNAMIC, BINARY,
 SPARSE, GROUPED, REPEAT) = range(1, 19)

_address, _number, _size, _real = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
_axes = _size * AXES


def _fields(kind: type, *names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names]


class Rescale(ctypes.Structure):
    """fb_rescale"""

    _fields_ = [*_fields(_address, "factor", "offset", "mantissa", "shift", "thresholds", "direction", "levels"),
                *_fields(_number, "number", "channels", "kind", "per_channel", "zero", "low", "high", "type")]


class Conv(ctypes.Structure):
    """fb_conv"""

    _fields_ = [*_fields(_number, "op", "x_type"), *_fields(_address, "x", "y", "weights", "bias"), ("rescale",
                                                                                                     Rescale),
                *_fields(_number, "weight_type", "layout", "x_zero", "batch", "height", "width", "channels",
                         "out_channels",
                         "groups", "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w",
                         "top", "bottom", "left", "right", "beyond")]


class Matmul(ctypes.Structure):
    """fb_matmul"""

    _fields_ = [*_fields(_number, "op", "b_transposed"), *_fields(_address, "a", "b", "y"), ("rescale", Rescale),
                *_fields(_number, "a_zero", "b_zero", "batches", "rows", "depth", "columns"),
                *_fields(_size, "a_step", "b_step")]


class Pair(ctypes.Structure):
    """fb_pair"""

    _fields_ = [*_fields(_number, "op", "kind"), *_fields(_address, "a", "b", "y", "table"),
                *_fields(_real, "scale_a", "scale_b", "scale_y", "offset"),
                *_fields(_number, "zero_a", "zero_b", "zero_y", "low", "high", "axes"),
                ("sizes", _axes), ("step_a", _axes), ("step_b", _axes), *_fields(_number, "a_type", "b_type", "y_type")]


class Table(ctypes.Structure):
    """fb_table"""

    _fields_ = [*_fields(_number, "op", "rows"), *_fields(_address, "x", "y", "table"),
                *_fields(_size, "count", "inner"), *_fields(_number, "x_type", "y_type", "x_low", "codes")]


class Pool(ctypes.Structure):
    """fb_pool"""

    _fields_ = [*_fields(_number, "op", "sums"), *_fields(_address, "x", "y", "factors"),
                *_fields(_number, "one_factor", "x_zero", "zero", "low", "high", "batch", "height", "width", "channels",
                         "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w",
                         "top", "bottom", "left", "right")]


class Mean(ctypes.Structure):
    """fb_mean"""

    _fields_ = [*_fields(_number, "op", "x_zero"), *_fields(_address, "x", "y"), ("rescale", Rescale),
                *_fields(_size, "outer", "length", "inner")]


class Softmax(ctypes.Structure):
    """fb_softmax"""

    _fields_ = [*_fields(_number, "op", "length"), *_fields(_address, "x", "y", "powers", "mask", "below", "whole",
                                                            "part"),
                *_fields(_size, "rows", "mask_rows"), ("scale", _real),
                *_fields(_number, "zero", "low", "high", "x_type", "x_low", "codes")]


class Norm(ctypes.Structure):
    """fb_norm"""

    _fields_ = [*_fields(_number, "op", "length"), *_fields(_address, "x", "y", "gain", "shift"),
                *_fields(_size, "rows", "gain_rows"), *_fields(_real, "epsilon", "scale"),
                *_fields(_number, "zero", "low", "high", "about_zero", "x_zero", "x_type")]


class Quantize(ctypes.Structure):
    """fb_quantize"""

    _fields_ = [*_fields(_number, "op", "away"), *_fields(_address, "x", "y"), ("count", _size), ("scale", _real),
                *_fields(_number, "zero", "low", "high", "type")]


class Dequantize(ctypes.Structure):
    """fb_dequantize"""

    _fields_ = [*_fields(_number, "op", "type"), *_fields(_address, "x", "y", "scale"), *_fields(_size, "count",
                                                                                                 "channels"),
                ("zero", _number)]


class Move(ctypes.Structure):
    """fb_move"""

    _fields_ = [*_fields(_number, "op", "item"), *_fields(_address, "x", "y", "table"), ("axes", _number),
                ("sizes", _axes), ("step_x", _axes), ("step_y", _axes)]


class Rows(ctypes.Structure):
    """fb_rows"""

    _fields_ = [*_fields(_number, "op", "item"), *_fields(_address, "x", "y", "numbers"),
                *_fields(_size, "outer", "source", "count", "inner")]


class Threshold(ctypes.Structure):
    """fb_threshold"""

    _fields_ = [*_fields(_number, "op", "type"), *_fields(_address, "x", "y", "thresholds", "direction", "levels"),
                *_fields(_size, "outer", "rows", "inner"), ("number", _number)]


class Dynamic(ctypes.Structure):
    """fb_dynamic"""

    _fields_ = [*_fields(_number, "op", "weight_scales"), *_fields(_address, "x", "codes", "weight_scale", "factor"),
                ("conv", Conv)]


class Binary(ctypes.Structure):
    """fb_binary"""

    _fields_ = [*_fields(_number, "op", "x_bits", "w_bits", "x_first", "x_low", "x_step", "w_low", "w_step"),
                *_fields(_address, "x", "y", "weights", "bias", "outside"), ("rescale", Rescale),
                *_fields(_number, "batch", "height", "width", "channels", "columns", "kernel_h", "kernel_w", "stride_h",
                         "stride_w", "dilation_h", "dilation_w", "top", "bottom", "left", "right")]


class Sparse(ctypes.Structure):
    """fb_sparse"""

    _fields_ = [*_fields(_number, "op", "unused"),
                *_fields(_address, "x", "y", "starts", "places", "which", "values", "counts", "steps", "begins",
                         "bias"),
                ("rescale", Rescale), *_fields(_number, "rows", "depth", "columns")]


class Grouped(ctypes.Structure):
    """fb_grouped"""

    _fields_ = [*_fields(_number, "op", "bits"), *_fields(_address, "x", "y", "weights", "factors", "bias"),
                ("rescale", Rescale), *_fields(_number, "x_zero", "rows", "depth", "columns", "group")]


class Slice(ctypes.Structure):
    """fb_slice"""

    _fields_ = [*_fields(_address, "from_", "to"),
                *_fields(_size, "rows", "bytes", "from_row", "to_row", "from_turn", "to_turn")]


class Repeat(ctypes.Structure):
    """fb_repeat"""

    _fields_ = [*_fields(_number, "op", "unused"), *_fields(_address, "calls", "before", "after"),
                *_fields(_size, "count", "before_count", "after_count", "turns")]


class Batch(ctypes.Structure):
    """fb_batch"""

    _fields_ = [("calls", _address), ("count", _size), ("scratch", _address),
                *_fields(_size, "scratch_bytes", "failed"), *_fields(_number, "threads", "checked")]


Call = (Conv | Matmul | Pair | Table | Pool | Mean | Softmax | Norm | Quantize | Dequantize | Move | Rows | Threshold
        | Dynamic | Binary | Sparse | Grouped | Repeat)

OPERATIONS: dict[type, int] = {
    Conv: CONV, Matmul: MATMUL, Pair: PAIR, Table: TABLE, Pool: POOL, Mean: MEAN, Softmax: SOFTMAX, Norm: NORM,
    Quantize: QUANTIZE, Dequantize: DEQUANTIZE, Move: MOVE, Rows: ROWS, Threshold: THRESHOLD, Dynamic: DYNAMIC,
    Binary: BINARY, Sparse: SPARSE, Grouped: GROUPED, Repeat: REPEAT}
"""The number with which each call starts."""

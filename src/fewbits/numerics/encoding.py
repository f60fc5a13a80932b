"""Encodings: a format fitted to data; and data in its codes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewbits.errors import EncodingError
from fewbits.numerics import affine
from fewbits.numerics.block import TENSOR, Block
from fewbits.numerics.formats import Format


def _frozen(array: npt.ArrayLike, dtype: npt.DTypeLike) -> np.ndarray:
    array = np.array(array, dtype)  # a copy: nobody else may change it
    array.flags.writeable = False
    return array


def _summary(array: np.ndarray) -> str:
    if array.size == 1:
        return f"{array.item():.6g}"
    return f"[{array.size}: {array.min():.6g} … {array.max():.6g}]"


@dataclass(frozen=True, eq=False)
class Encoding:
    """Where a grid lies: real = scale · (code − zero_point).

    format: the codes; scale: float32, `block.scale_shape(data.shape)`, in units of the data;
    zero_point: int32, same shape, a code of the format; block: who shares a scale.
    Raises EncodingError for a scale that is not finite and positive, or a zero point that is no code.
    """

    format: Format
    scale: np.ndarray
    zero_point: np.ndarray
    block: Block = TENSOR

    def __init__(self, format: Format, scale: npt.ArrayLike, zero_point: npt.ArrayLike = 0,
                 block: Block = TENSOR):
        scale = _frozen(scale, np.float32)
        zero_point = _frozen(np.broadcast_to(zero_point, scale.shape), np.int32)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise EncodingError(f"a scale must be finite and positive, not {_summary(scale)}")
        if zero_point.size and not (format.low <= zero_point.min() and zero_point.max() <= format.high):
            raise EncodingError(f"zero point {_summary(zero_point)} is no code of {format}, which holds "
                                f"{format.low} to {format.high}")
        if format.bits > 24 and zero_point.any():
            raise EncodingError(f"{format} has no zero point: its codes do not fit float32 exactly")
        for name, value in (("format", format), ("scale", scale), ("zero_point", zero_point),
                            ("block", block)):
            object.__setattr__(self, name, value)

    def encode(self, real: np.ndarray) -> "Quantized":
        """Nearest codes, ties to even, saturating; arithmetic in the type of `real` (float32 or float64)."""
        scale, zero_point = (self.block.expand(v, real.shape) for v in (self.scale, self.zero_point))
        codes = affine.encode(real, scale, zero_point, self.format.low, self.format.high)
        return Quantized(codes.astype(self.format.dtype), self)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The numbers that codes stand for, float32: float32(code − zero_point) · scale."""
        scale, zero_point = (self.block.expand(v, codes.shape) for v in (self.scale, self.zero_point))
        return affine.decode(codes.astype(np.float32), scale, zero_point.astype(np.float32))

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Encoding) and self.format == other.format and self.block == other.block
                and np.array_equal(self.scale, other.scale)
                and np.array_equal(self.zero_point, other.zero_point))

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def __str__(self) -> str:
        shift = f" zero_point={_summary(self.zero_point)}" if self.zero_point.any() else ""
        per = "" if self.block == TENSOR else f" per {self.block}"
        return f"{self.format}{per} scale={_summary(self.scale)}{shift}"


@dataclass(frozen=True, eq=False)
class Quantized:
    """Codes and what they mean. codes: the format's integer dtype, any shape."""

    codes: np.ndarray
    encoding: Encoding

    def __post_init__(self):
        codes = _frozen(self.codes, self.encoding.format.dtype)
        format = self.encoding.format
        if codes.size and not (format.low <= codes.min() and codes.max() <= format.high):
            raise EncodingError(f"codes {_summary(codes)} leave {format} [{format.low}, {format.high}]")
        expected = self.encoding.block.scale_shape(codes.shape)
        if self.encoding.scale.shape != expected:
            raise EncodingError(f"codes of shape {codes.shape} per {self.encoding.block} need scales of "
                                f"shape {expected}, not {self.encoding.scale.shape}")
        object.__setattr__(self, "codes", codes)

    def dequantize(self) -> np.ndarray:
        """float32, shape of the codes."""
        return self.encoding.decode(self.codes)

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Quantized) and self.encoding == other.encoding
                and np.array_equal(self.codes, other.codes))

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"{list(self.codes.shape)} {self.encoding}"

"""Encodings (format, scale, zero point, granularity), and tensors quantized by them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from fewbits.errors import EncodingError
from fewbits.numerics import affine
from fewbits.numerics.block import TENSOR, Block
from fewbits.numerics.formats import Float, Format, Int
from fewbits.numerics.given import finite_array
from fewbits.numerics.packing import packed_bytes
from fewbits.numerics.pieces import PIECE, Index, each_piece, matching
from fewbits.numerics.rounding import Rounding, half_even


def _frozen(array: npt.ArrayLike, dtype: npt.DTypeLike) -> np.ndarray:
    """The array, never to change again: a copy, unless it already is of this type and read-only."""
    if isinstance(array, np.ndarray) and array.dtype == dtype and array.base is None and not array.flags.writeable:
        return array
    array = np.array(array, dtype)
    array.flags.writeable = False
    return array


def summary(array: np.ndarray) -> str:
    """Numbers in a sentence: one as it is, of several how many there are, and the smallest and largest."""
    if array.size == 1:
        return f"{array.item():.6g}"
    return f"[{array.size}: {array.min():.6g} … {array.max():.6g}]"


ENCODING_BYTES = 8
"""What a tensor's scale, float32, and zero point, int32, take in a file."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """A format with scale and zero point: real = scale · (value(code) − zero_point).

    format: the codes and their numbers; scale: float32, `block.scale_shape(data.shape)`, in units of the
    data; zero_point: int32, same shape, a code of the format, 0 except for integers; block: granularity.
    A scale given as Quantized is stored in its own codes (MX, NVFP4): `nested` keeps it, `scale` its numbers.
    Raises EncodingError for a scale that is not finite and positive, or a zero point that is no code.
    """

    format: Format
    scale: np.ndarray
    zero_point: np.ndarray
    block: Block = TENSOR
    nested: "Quantized | None" = None

    def __init__(self, format: Format, scale: "npt.ArrayLike | Quantized", zero_point: npt.ArrayLike = 0,
                 block: Block = TENSOR):
        if isinstance(format, Int) and format.fraction is not None:
            format = replace(format, fraction=None)  # the scale says by now where the point is
        nested = scale if isinstance(scale, Quantized) else None
        scale = _frozen(scale.dequantize() if isinstance(scale, Quantized) else scale, np.float32)
        zero_point = _frozen(np.broadcast_to(zero_point, scale.shape), np.int32)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise EncodingError(f"a scale must be finite and positive, not {summary(scale)}")
        if not isinstance(format, Int) and zero_point.any():
            raise EncodingError(f"{format} has no zero point: only integers do")
        if zero_point.size and not (format.low <= zero_point.min() and zero_point.max() <= format.high):
            raise EncodingError(f"zero point {summary(zero_point)} is no code of {format}, which holds "
                                f"{format.low} to {format.high}")
        if format.bits > 24 and zero_point.any():
            raise EncodingError(f"{format} has no zero point: its codes do not fit float32 exactly")
        for name, value in (("format", format), ("scale", scale), ("zero_point", zero_point),
                            ("block", block), ("nested", nested)):
            object.__setattr__(self, name, value)

    def encode(self, real: np.ndarray, rounding: Rounding = half_even) -> "Quantized":
        """Nearest codes, ties to even (`Levels` say theirs), saturating; or by another rule of rounding.py.

        real: any shape and strides; arithmetic in its type, float32 or float64 (narrower ones in float32).
        Large arrays are encoded in chunks: no memory is needed beside the codes. A rule with a generator
        runs over the whole array at once, so that its draws do not depend on the chunks.
        """
        real = np.asarray(real)
        values, axes = self.block.split(real)
        scale, zero_point = self._beside(values.ndim, axes)
        codes = np.empty(real.shape, self.format.dtype)
        into, _ = self.block.split(codes)
        kind = np.result_type(real.dtype, np.float32)

        def work(parts: Sequence[Index]) -> None:
            scratch = np.empty(min(values.size, PIECE), kind)
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                for part in parts:
                    own = matching(part, scale.shape)
                    self._encode_into(into[part], values[part], scale[own], zero_point[own], rounding, scratch)

        if isinstance(rounding, partial):
            scratch = np.empty(values.size, kind)
            self._encode_into(into, values, scale, zero_point, rounding, scratch)
        else:
            each_piece(values.shape, work)
        codes.flags.writeable = False
        return Quantized(codes, self)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Dequantizes codes: float32, scale · float32(value(code) − zero_point)."""
        codes = np.asarray(codes)
        values, axes = self.block.split(codes)
        scale, zero_point = self._beside(values.ndim, axes)
        real = np.empty(codes.shape, np.float32)
        into, _ = self.block.split(real)

        def work(parts: Sequence[Index]) -> None:
            for part in parts:
                own = matching(part, scale.shape)
                into[part] = affine.decode(self.format.decode(values[part]), scale[own],
                                           zero_point[own].astype(np.float32))

        each_piece(values.shape, work)
        return real

    def nearest(self, real: torch.Tensor, rounding: Rounding = half_even) -> torch.Tensor:
        """What `decode(encode(real))` gives, for float32 torch tensors on any device, with no codes between."""
        scale, zero_point = (torch.tensor(v, device=real.device) for v in (self.scale, self.zero_point))
        scale, zero_point = (self.block.expand(v, real.shape) for v in (scale, zero_point))
        if isinstance(self.format, Int):
            codes = affine.encode(real, scale, zero_point, self.format.low, self.format.high, rounding)
            return affine.decode(codes, scale, zero_point)
        return self.format.nearest(real / scale, rounding) * scale

    def _encode_into(self, codes: np.ndarray, real: np.ndarray, scale: np.ndarray, zero_point: np.ndarray,
                     rounding: Rounding, scratch: np.ndarray) -> None:
        """Writes the codes of a chunk. scratch: as large as the chunk, of the arithmetic's type."""
        format = self.format
        if isinstance(format, Int) and rounding is half_even and format.bits <= 16:
            affine.encode_into(codes, real, scale, zero_point, format.low, format.high, scratch)
            return
        steps = scratch[:real.size].reshape(real.shape)
        np.divide(real, scale, out=steps)
        if isinstance(format, Int):
            steps = rounding(steps) + zero_point.astype(np.float64)
            codes[...] = format.encode(steps)
        elif rounding is half_even and isinstance(format, Float):
            format.encode_into(codes, steps)
        else:
            codes[...] = format.encode(steps, rounding)

    def _beside(self, rank: int, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Scale and zero point in a shape that broadcasts against `block.split(x)`."""
        if not self.block.sizes:
            shape: tuple[int, ...] = (1,) * rank
        else:
            lengths = iter(self.scale.shape)
            shape = tuple(1 if axis in axes else next(lengths) for axis in range(rank))
        return self.scale.reshape(shape), self.zero_point.reshape(shape)

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Encoding) and self.format == other.format and self.block == other.block
                and np.array_equal(self.scale, other.scale) and self.nested == other.nested
                and np.array_equal(self.zero_point, other.zero_point))

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def __str__(self) -> str:
        shift = f" zero_point={summary(self.zero_point)}" if self.zero_point.any() else ""
        per = "" if self.block == TENSOR else f" per {self.block}"
        return f"{self.format}{per} scale={summary(self.scale)}{shift}"


@dataclass(frozen=True)
class Error:
    """Quantization error: sum and mean of the squared differences, and the largest difference."""

    sse: float
    mse: float
    largest: float

    def __str__(self) -> str:
        return f"sum of squares {self.sse:.6g}, mean {self.mse:.6g}, largest {self.largest:.6g}"


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized tensor: codes and their encoding. codes: the format's integer dtype, any shape.

    Raises EncodingError for codes that the format has not, and scales that do not fit their shape.

    >>> import fewbits as fb
    >>> q = fb.linear_quantize([[2.09, -0.98], [0.05, -1.08]], bits=8)
    >>> q.codes.tolist(), round(float(q.scale), 6), int(q.zero_point)
    ([[127, -120], [-37, -128]], 0.012431, -41)
    >>> print(q.error([[2.09, -0.98], [0.05, -1.08]]))
    sum of squares 9.07337e-06, mean 2.26834e-06, largest 0.00207843
    """

    codes: np.ndarray
    encoding: Encoding

    def __post_init__(self):
        codes = _frozen(self.codes, self.encoding.format.dtype)
        format = self.encoding.format
        whole_type = format.bits == 8 * format.dtype.itemsize and format.high - format.low == 2**format.bits - 1
        if not whole_type and codes.size and not (format.low <= codes.min() and codes.max() <= format.high):
            raise EncodingError(f"codes {summary(codes)} leave {format} [{format.low}, {format.high}]")
        expected = self.encoding.block.scale_shape(codes.shape)
        if self.encoding.scale.shape != expected:
            raise EncodingError(f"codes of shape {codes.shape} per {self.encoding.block} need scales of "
                                f"shape {expected}, not {self.encoding.scale.shape}")
        object.__setattr__(self, "codes", codes)

    @property
    def scale(self) -> np.ndarray:
        """S of the encoding: float32, one number or one for each block."""
        return self.encoding.scale

    @property
    def zero_point(self) -> np.ndarray:
        """Z of the encoding: int32, of the scale's shape."""
        return self.encoding.zero_point

    @property
    def stored_bytes(self) -> int:
        """Bytes of the packed codes and of their scales: 4 a scale, or its own codes; no zero points."""
        nested = self.encoding.nested
        scales = 4 * self.encoding.scale.size if nested is None else nested.stored_bytes
        return packed_bytes(self.codes.size, self.encoding.format) + scales

    def dequantize(self) -> np.ndarray:
        """float32, shape of the codes."""
        return self.encoding.decode(self.codes)

    def error(self, real: npt.ArrayLike | torch.Tensor) -> Error:
        """How far the numbers are from `real`. Raises EncodingError for another shape, NaN and Inf."""
        wanted = finite_array(real).astype(np.float64)
        if wanted.shape != self.codes.shape:
            raise EncodingError(f"numbers of shape {wanted.shape} are not what codes of {self.codes.shape} stand for")
        off = self.dequantize().astype(np.float64) - wanted
        return Error(float(np.square(off).sum()), float(np.square(off).mean()), float(np.abs(off).max()))

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Quantized) and self.encoding == other.encoding
                and np.array_equal(self.codes, other.codes))

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"{list(self.codes.shape)} {self.encoding}"

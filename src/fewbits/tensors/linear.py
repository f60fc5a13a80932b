"""Linear quantization of one tensor: r = S · (q − Z)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.block import parse_block
from fewbits.numerics.encoding import Encoding, Quantized, summary
from fewbits.numerics.formats import Int
from fewbits.numerics.given import array, finite_array
from fewbits.numerics.rounding import rule_of
from fewbits.options import arguments_checked
from fewbits.ranges import scale as scales
from fewbits.ranges.scale import Convention

Blocks = str | Sequence[int]


@arguments_checked
def scale_and_zero_point(x: npt.ArrayLike | torch.Tensor, bits: int = 2, *, symmetric: bool = False,
                         signed: bool = True, block: Blocks = "tensor", include_zero: bool = True,
                         convention: Convention = "restricted") -> tuple[np.ndarray, np.ndarray]:
    """Scale S and zero point Z of the range of x: S = (max − min) / (q_max − q_min), Z = clip(rint(q_min − min / S)).

    x: any shape, NumPy or torch. symmetric: Z = 0 and S of the largest magnitude, by `convention` (ranges/scale.py).
    signed: codes from −2^(b−1), else from 0. block: who shares a scale: `tensor`, `channel`, or sizes such as
    [1, 128]. include_zero: widen the range to hold 0, so that 0 has a code of its own; without it Z is clipped to the
    codes, as in the lectures. Returns float64 and int32, one number per block.
    Raises EncodingError for NaN, Inf, no numbers, and blocks that do not divide the shape.
    Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1.

    >>> S, Z = scale_and_zero_point([[2.09, -0.98], [0.05, -1.08]], bits=8)
    >>> round(float(S), 6), int(Z)
    (0.012431, -41)
    """
    low, high = _range(finite_array(x), block)
    if symmetric or include_zero:
        return scales.scale_and_zero_point(low, high, Int(bits, signed=signed), symmetric, convention)
    return scales.from_ends(low, high, Int(bits, signed=signed))


@arguments_checked
def linear_quantize(x: npt.ArrayLike | torch.Tensor, bits: int = 2, *, symmetric: bool = False, signed: bool = True,
                    block: Blocks = "tensor", scale: npt.ArrayLike | None = None,
                    zero_point: npt.ArrayLike | None = None, include_zero: bool = True,
                    convention: Convention = "restricted", rounding: str = "half_even") -> Quantized:
    """q = clip(rint(x / S) + Z, q_min, q_max): the codes of x, and what they mean.

    scale, zero_point: given, or found as `scale_and_zero_point` finds them, whose other arguments these are.
    rounding: a tie rule by name, `half_even`, `half_away`, `floor`, ….
    Returns a Quantized: `.codes`, `.encoding`, `.dequantize()`, `.error(x)`. Raises EncodingError as
    `scale_and_zero_point` does, for a rounding that is none, and a zero point that is no code.

    >>> q = linear_quantize([[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12]], bits=2)
    >>> q.codes.tolist()
    [[1, -2, 0, -1], [-1, -1, -2, 1]]
    >>> round(float(q.encoding.scale), 4), int(q.encoding.zero_point)
    (1.0667, -1)
    """
    values = finite_array(x)
    if zero_point is not None and not np.equal(np.mod(zero_point := finite_array(zero_point), 1), 0).all():
        raise EncodingError(f"a zero point is a code, a whole number, not {summary(zero_point)}")
    rule = rule_of(rounding)
    if scale is None:
        found, zero = scale_and_zero_point(values, bits, symmetric=symmetric, signed=signed, block=block,
                                           include_zero=include_zero, convention=convention)
        scale = found.astype(np.float32)
        zero_point = zero if zero_point is None else zero_point
    shape = parse_block(block).scale_shape(values.shape)
    scale, zero_point = array(scale), np.zeros(()) if zero_point is None else zero_point
    for what, given in (("scale", scale), ("zero point", zero_point)):
        if given.ndim and given.shape != shape:
            raise EncodingError(f"a {what} of shape {list(given.shape)} does not fit a tensor of {list(values.shape)} "
                                f"with block {parse_block(block)}: give one of shape {list(shape)}, or one number")
    format = Int(bits, signed=signed)
    if not (format.low <= zero_point.min() and zero_point.max() <= format.high):
        raise EncodingError(f"zero point {summary(zero_point)} is no code of {format}, which holds {format.low} to "
                            f"{format.high}")
    encoding = Encoding(format, np.broadcast_to(scale, shape), zero_point, parse_block(block))
    return encoding.encode(values, rule)


def _range(values: np.ndarray, block: Blocks) -> tuple[np.ndarray, np.ndarray]:
    parts, axes = parse_block(block).split(values)
    return parts.min(axis=axes), parts.max(axis=axes)

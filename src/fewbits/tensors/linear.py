"""Linear quantization of one tensor: r = S · (q − Z)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.block import parse_block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.numerics.rounding import RULES
from fewbits.options import options_checked
from fewbits.ranges import scale as rule
from fewbits.ranges.scale import Convention

Blocks = str | Sequence[int]


@options_checked
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
    low, high = _range(array(x), block)
    if symmetric or include_zero:
        return rule.scale_and_zero_point(low, high, Int(bits, signed=signed), symmetric, convention)
    return rule.from_ends(low, high, Int(bits, signed=signed))


@options_checked
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
    values = array(x)
    if zero_point is not None and not np.equal(np.mod(array(zero_point), 1), 0).all():
        raise EncodingError(f"a zero point is a code, a whole number, not {zero_point}")
    if rounding not in RULES:
        raise EncodingError(f"no rounding is called {rounding!r}: choose one of {', '.join(RULES)}")
    if scale is None:
        found, zero = scale_and_zero_point(values, bits, symmetric=symmetric, signed=signed, block=block,
                                           include_zero=include_zero, convention=convention)
        scale = found.astype(np.float32)
        zero_point = zero if zero_point is None else zero_point
    encoding = Encoding(Int(bits, signed=signed), scale, 0 if zero_point is None else zero_point, parse_block(block))
    return encoding.encode(values, RULES[rounding])


def array(x: npt.ArrayLike | torch.Tensor) -> np.ndarray:
    """Numbers of a list, an array or a tensor: float32 where they are, else float64. Raises EncodingError for none."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        values = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    else:
        try:
            values = np.asarray(x)
        except ValueError:
            raise EncodingError("rows of unlike lengths are no tensor: give an array of real numbers") from None
    if values.dtype.kind not in "biuf":
        raise EncodingError(f"{values.dtype} is no type of real numbers: give an array of them")
    if not values.size:
        raise EncodingError("there are no numbers to quantize: give at least one")
    return values if values.dtype == np.float32 else values.astype(np.float64)


def _range(values: np.ndarray, block: Blocks) -> tuple[np.ndarray, np.ndarray]:
    parts, axes = parse_block(block).split(values)
    return parts.min(axis=axes), parts.max(axis=axes)

"""THE scale rule: from a range of real numbers to scale and zero point (docs/numerics.md, eq. 3).

Tools disagree about the first line of arithmetic, so every convention has a name:

| convention   | symmetric scale of b bits          | int8      | used by                                |
|--------------|------------------------------------|-----------|----------------------------------------|
| `restricted` | max / (2^(b−1) − 1)                | max/127   | TensorFlow, TensorRT, ONNX Runtime     |
| `full`       | max / 2^(b−1)                      | max/128   | the lectures' "full range"; +max clips |
| `torch`      | max / ((q_max − q_min) / 2)        | max/127.5 | PyTorch's observers                    |

Others give a power of two, a fixed point whose zero point is always 0, or leave the numbers alone:

| convention            | scale of b bits                                                            |
|-----------------------|----------------------------------------------------------------------------|
| `power-of-two`        | the smallest 2^k that reaches max                                          |
| `dynamic-weights`     | 2^(il−b), il = ⌈log2 max + 1⌉: Ristretto; max itself clips if it is a power |
| `dynamic-activations` | 2^(il−b), il = ⌈log2 max⌉: Ristretto, one bit fewer; the largest clip       |
| `mx`                  | 2^(⌊log2 max⌋ − e) per block, e of the format: OCP MX (microscaling.py)     |
| `nvfp4`               | max/6 per block in e4m3 under one float32: NVFP4, for e2m1                  |
| `unit`                | 1: for tables and floats that say themselves how large a number is         |

An asymmetric range is widened to contain 0, spread over all codes, and its zero point is rounded, so that
the number 0 has a code of its own: scale = (high − low)/(q_max − q_min), zero_point = q_min − low/scale.

A format with a fixed point (`q4.4`) has scale 2^-fraction whatever the range. A Float or Levels has no zero
point, so that all its ranges are symmetric: its largest number takes the largest magnitude, scale =
max/largest. Floats of 16 bits and more carry their exponents themselves: scale 1.

What has no range still has an answer: a block of zeros takes the largest scale among the tensor's other
blocks, and 1 where there is none; a scale below the smallest normal float32 becomes that one.
"""

from typing import Literal, get_args

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.block import TENSOR, Block
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Float, Format, Int, Levels
from fewbits.numerics.rounding import half_even
from fewbits.options import options_checked
from fewbits.ranges.microscaling import mx_of, nvfp4_of

Convention = Literal["restricted", "full", "torch", "power-of-two", "dynamic-weights", "dynamic-activations",
                     "mx", "nvfp4", "unit"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

_SMALLEST = float(np.finfo(np.float32).tiny)


@options_checked
def encoding_for(low: np.ndarray, high: np.ndarray, format: Format, symmetric: bool,
                 convention: Convention = "restricted", block: Block = TENSOR) -> Encoding:
    """The encoding that fits numbers in [low, high]: `scale_and_zero_point`, its scale rounded to float32.

    low, high: one pair per block, shape `block.scale_shape(...)`. Conventions whose scales are themselves in few bits
    give an encoding with a nested scale.
    """
    if convention in _NESTED:
        low, high = _checked(low, high)
        return _NESTED[convention](np.maximum(np.abs(low), np.abs(high)), format, block)
    scale, zero_point = scale_and_zero_point(low, high, format, symmetric, convention)
    return Encoding(format, np.maximum(scale, _SMALLEST).astype(np.float32), zero_point, block)


@options_checked
def scale_and_zero_point(low: np.ndarray, high: np.ndarray, format: Format, symmetric: bool,
                         convention: Convention = "restricted") -> tuple[np.ndarray, np.ndarray]:
    """(scale, zero_point) of numbers in [low, high], float64 and int32, of their shape.

    symmetric: zero point 0 and equal reach to both sides (an unsigned format then holds no negative
    number), else asymmetric. convention: of the symmetric scale; one of the second table makes every range
    symmetric. Raises EncodingError for a range that is not finite or upside down, for negative numbers in a
    symmetric unsigned format, and for a dynamic fixed point of anything but integers.
    """
    low, high = _checked(low, high)
    no_shift = np.zeros(low.shape, np.int32)
    if convention not in CONVENTIONS:
        raise EncodingError(f"no scale convention is called {convention!r}: "
                            f"choose one of {', '.join(CONVENTIONS)}")
    if convention in _NESTED:
        raise EncodingError(f"{convention} scales are themselves in few bits: ask for the whole encoding")
    if isinstance(format, Int) and format.fraction is not None:
        return np.full(low.shape, 2.0**-format.fraction), no_shift
    if convention == "unit" or (isinstance(format, Float) and format.bits >= 16):
        return np.ones(low.shape), no_shift
    if symmetric or not isinstance(format, Int) or convention in _POWERS_OF_TWO:
        explicit = isinstance(format, Levels) and format.thresholds is not None
        if not format.signed and not explicit and (low < 0).any():
            raise EncodingError(f"symmetric {format} cannot hold {low.min():.6g}: "
                                "use a signed format or an asymmetric one")
        reach = np.maximum(np.abs(low), np.abs(high))
        if convention in _POWERS_OF_TWO:
            return _filled(_power_of_two_scale(reach, format, convention)), no_shift
        return _filled(reach / _steps_to_maximum(format, convention)), no_shift
    return from_ends(np.minimum(low, 0.0), np.maximum(high, 0.0), format)


def from_ends(low: np.ndarray, high: np.ndarray, format: Int) -> tuple[np.ndarray, np.ndarray]:
    """(scale, zero_point) that spread [low, high] over all codes, float64 and int32: the asymmetric rule. Where 0 lies
    outside the range, the zero point is clipped to the codes, and 0 has none of its own."""
    scale = _filled((high - low) / (format.high - format.low))
    zero_point = half_even(format.low - low / scale).clip(format.low, format.high)
    return scale, zero_point.astype(np.int32)


_NESTED = {"mx": mx_of, "nvfp4": nvfp4_of}


def _checked(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise EncodingError("a range must be finite: it holds NaN or Inf")
    if (low > high).any():
        raise EncodingError(f"a range must ascend, not run from {low.max():.6g} to {high.min():.6g}")
    return low, high


_POWERS_OF_TWO = ("power-of-two", "dynamic-weights", "dynamic-activations")


def ceil_log2(x: np.ndarray) -> np.ndarray:
    """⌈log2 x⌉ exactly, for x > 0 (0 for 0): int64."""
    mantissa, exponent = np.frexp(x)
    return np.where(mantissa == 0.5, exponent - 1, exponent).astype(np.int64)


def _power_of_two_scale(reach: np.ndarray, format: Format, convention: Convention) -> np.ndarray:
    if convention == "power-of-two":
        exponent = ceil_log2(reach / format.largest)
    elif isinstance(format, Int):
        sign_bit = 1 if format.signed and convention == "dynamic-weights" else 0
        exponent = ceil_log2(reach) + sign_bit - format.bits
    else:
        raise EncodingError(f"a dynamic fixed point is made of integers, not {format}")
    return np.where(reach == 0, 0.0, np.ldexp(1.0, exponent))


def _steps_to_maximum(format: Format, convention: Convention) -> float:
    """How many steps of the scale reach the largest magnitude."""
    if not isinstance(format, Int):
        return format.largest
    if convention == "torch":
        return (format.high - format.low) / 2
    if not format.signed:
        return float(format.high)
    if convention == "full":
        return float(2 ** (format.bits - 1))
    return max(float(2 ** (format.bits - 1) - 1), 1.0)


def _filled(scale: np.ndarray) -> np.ndarray:
    """Scales with an answer for blocks of zeros: see the module's last paragraph."""
    largest = scale.max(initial=0.0)
    return np.where(scale == 0, largest if largest > 0 else 1.0, scale)

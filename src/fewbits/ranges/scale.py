"""THE scale rule: from a range of real numbers to scale and zero point (docs/numerics.md, eq. 3).

Tools disagree about the first line of arithmetic, so every convention has a name:

| convention   | symmetric scale of b bits          | int8      | used by                                |
|--------------|------------------------------------|-----------|----------------------------------------|
| `restricted` | max / (2^(b−1) − 1)                | max/127   | TensorFlow, TensorRT, ONNX Runtime     |
| `full`       | max / 2^(b−1)                      | max/128   | the lectures' "full range"; +max clips |
| `torch`      | max / ((q_max − q_min) / 2)        | max/127.5 | PyTorch's observers                    |

An asymmetric range is widened to contain 0, spread over all codes, and its zero point is rounded, so that
the number 0 has a code of its own: scale = (high − low)/(q_max − q_min), zero_point = q_min − low/scale.

What has no range still has an answer: a block of zeros takes the largest scale among the tensor's other
blocks, and 1 where there is none; a scale below the smallest normal float32 becomes that one.
"""

from typing import Literal, get_args

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.block import TENSOR, Block
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Format
from fewbits.numerics.rounding import half_even

Convention = Literal["restricted", "full", "torch"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

_SMALLEST = float(np.finfo(np.float32).tiny)


def encoding_for(low: np.ndarray, high: np.ndarray, format: Format, symmetric: bool,
                 convention: Convention = "restricted", block: Block = TENSOR) -> Encoding:
    """The encoding that fits numbers in [low, high]: `scale_and_zero_point`, its scale rounded to float32.

    low, high: one pair per block, shape `block.scale_shape(...)`.
    """
    scale, zero_point = scale_and_zero_point(low, high, format, symmetric, convention)
    return Encoding(format, np.maximum(scale, _SMALLEST).astype(np.float32), zero_point, block)


def scale_and_zero_point(low: np.ndarray, high: np.ndarray, format: Format, symmetric: bool,
                         convention: Convention = "restricted") -> tuple[np.ndarray, np.ndarray]:
    """(scale, zero_point) of numbers in [low, high], float64 and int32, of their shape.

    symmetric: zero point 0 and equal reach to both sides (an unsigned format then holds no negative
    number), else asymmetric. convention: of the symmetric scale. Raises EncodingError for a range that is
    not finite or upside down, and for negative numbers in a symmetric unsigned format.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise EncodingError("a range must be finite: it holds NaN or Inf")
    if (low > high).any():
        raise EncodingError(f"a range must ascend, not run from {low.max():.6g} to {high.min():.6g}")
    if symmetric:
        if not format.signed and (low < 0).any():
            raise EncodingError(f"symmetric {format} cannot hold {low.min():.6g}: "
                                "use a signed format or an asymmetric one")
        scale = _filled(np.maximum(np.abs(low), np.abs(high)) / _steps_to_maximum(format, convention))
        return scale, np.zeros(scale.shape, np.int32)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    scale = _filled((high - low) / (format.high - format.low))
    zero_point = half_even(format.low - low / scale).clip(format.low, format.high)
    return scale, zero_point.astype(np.int32)


def _steps_to_maximum(format: Format, convention: Convention) -> float:
    """How many steps of the scale reach the largest magnitude."""
    if convention == "torch":
        return (format.high - format.low) / 2
    if not format.signed:
        return float(format.high)
    if convention == "full":
        return float(2 ** (format.bits - 1))
    if convention == "restricted":
        return max(float(2 ** (format.bits - 1) - 1), 1.0)
    raise EncodingError(f"no scale convention is called {convention!r}: choose one of {', '.join(CONVENTIONS)}")


def _filled(scale: np.ndarray) -> np.ndarray:
    """Scales with an answer for blocks of zeros: see the module's last paragraph."""
    largest = scale.max(initial=0.0)
    return np.where(scale == 0, largest if largest > 0 else 1.0, scale)

"""Products of codes: a fully connected layer and a convolution in integers, with everything on the way to see.

Source: Jacob et al. 2018, arXiv:1712.05877, §2.2 to 2.4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import ACCUMULATOR, Int
from fewbits.numerics.given import array
from fewbits.options import arguments_checked
from fewbits.program.ops.steps import convolved, saturate
from fewbits.program.requantize import accumulator_scale, dot_multiplier

_PADDING = 4096  # on each side: more is a slip, and memory


@dataclass(frozen=True, eq=False)
class Terms:
    """Σ (q_W − Z_W)(q_X − Z_X) = products − of_weight_zero − of_input_zero + of_both, each int64 of the result's shape.

    products: Σ q_W q_X; of_weight_zero: Z_W Σ q_X; of_input_zero: Z_X Σ q_W; of_both: Σ Z_W Z_X. Padding counts as the
    number 0, the input's zero point.
    """

    products: np.ndarray
    of_weight_zero: np.ndarray
    of_input_zero: np.ndarray
    of_both: np.ndarray


@dataclass(frozen=True, eq=False)
class QuantizedProduct:
    """What a layer in integers gives, and how.

    result: its codes; accumulator: the sums with their bias, int32, in steps of S_W · S_X; bias: q_b = rint(b / (S_W
    S_X)), int32 [O]; q_bias: q_b − Z_X Σ q_W, int32 [O], what is added to Σ q_W q_X where the weights have no zero
    point; multiplier: S_W · S_X / S_Y, float32 [] or [O]; terms: of the sums without bias.
    """

    result: Quantized
    accumulator: np.ndarray
    bias: np.ndarray
    q_bias: np.ndarray
    multiplier: np.ndarray
    terms: Terms

    @property
    def codes(self) -> np.ndarray:
        """Codes of the result."""
        return self.result.codes

    def dequantize(self) -> np.ndarray:
        """The numbers that they stand for, float32."""
        return self.result.dequantize()


@arguments_checked
def quantized_linear(x: Quantized, weight: Quantized, bias: npt.ArrayLike | torch.Tensor | None,
                     output: Encoding) -> QuantizedProduct:
    """y = W · x + b in integers: q_Y = clip(rint(M · (Σ (q_W − Z_W)(q_X − Z_X) + q_b)) + Z_Y).

    x: [..., K] under one scale; weight: [O, K], one scale or one per row; bias: real numbers [O], or None; output: the
    encoding of the result, of one scale. Raises EncodingError for shapes and scales that do not fit.

    >>> from fewbits.tensors.linear import linear_quantize
    >>> W, x = [[0.5, -1.0], [1.0, 0.25]], [[1.0, 2.0]]
    >>> product = quantized_linear(linear_quantize(x, 8), linear_quantize(W, 8, symmetric=True), None,
    ...                            linear_quantize([[-1.5, 1.5]], 8).encoding)
    >>> product.accumulator.tolist()
    [[-24257, 24289]]
    >>> product.codes.tolist()
    [[-127, 127]]
    """
    if x.codes.shape[-1:] != weight.codes.shape[1:]:
        raise EncodingError(f"rows of {x.codes.shape[-1:]} do not fit a weight of {list(weight.codes.shape)}: its last "
                            "axis is as long as that of the input")
    return _product(x, weight, bias, output, -1, lambda a, w: np.einsum("...k,ok->...o", a, w))


@arguments_checked
def quantized_conv2d(x: Quantized, weight: Quantized, bias: npt.ArrayLike | torch.Tensor | None, output: Encoding, *,
                     stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1) -> QuantizedProduct:
    """A two-dimensional convolution in integers, padded with the number 0, that is with the code Z_X.

    x: [N, C, H, W] under one scale; weight: [O, C / groups, kh, kw], one scale or one per output channel; else as
    `quantized_linear`. Raises EncodingError as it does, and for a kernel that reaches beyond the padded input.
    """
    if x.codes.ndim != 4 or weight.codes.ndim != 4 or x.codes.shape[1] != groups * weight.codes.shape[1]:
        raise EncodingError(f"an input of {list(x.codes.shape)} does not fit a weight of {list(weight.codes.shape)} in "
                            f"{groups} groups: they are [N, C, H, W] and [O, C / groups, kh, kw]")
    if not (1 <= stride < 2**31 and 1 <= dilation < 2**31 and 0 <= padding <= _PADDING):
        raise EncodingError(f"stride {stride} and dilation {dilation} are at least 1, and padding {padding} at least 0 "
                            f"and at most {_PADDING}: give such numbers")
    if groups < 1 or len(weight.codes) % groups:
        raise EncodingError(f"{groups} groups do not divide {len(weight.codes)} output channels: give a divisor")
    reach = [dilation * (side - 1) + 1 for side in weight.codes.shape[2:]]
    if any(side + 2 * padding < needed for side, needed in zip(x.codes.shape[2:], reach, strict=True)):
        raise EncodingError(f"an input of {list(x.codes.shape)} with padding {padding} is smaller than the kernel, "
                            f"which reaches over {reach}")
    two, margins = (stride, stride), ((padding, padding), (padding, padding))
    return _product(x, weight, bias, output, 1,
                    lambda a, w: convolved(a, w, two, margins, (dilation, dilation), groups))


def _by_channel(weight: Quantized) -> Quantized:
    """The weight with one scale, or one per output channel, also where blocks such as [1, K] say so in other words."""
    encoding = weight.encoding
    if encoding.block.sizes in ((), (1,)):
        return weight
    if encoding.scale.size not in (1, len(weight.codes)) or len(encoding.scale) not in (1, len(weight.codes)):
        raise EncodingError(f"a weight has one scale, or one per output channel, not {encoding.scale.size} of block "
                            f"{encoding.block}: quantize it per channel")
    block = CHANNEL if encoding.scale.size == len(weight.codes) else TENSOR
    shape = block.scale_shape(weight.codes.shape)
    scale, zero_point = encoding.scale.reshape(shape), encoding.zero_point.reshape(shape)
    return Quantized(weight.codes, Encoding(encoding.format, scale, zero_point, block))


def _product(x: Quantized, weight: Quantized, bias: npt.ArrayLike | torch.Tensor | None, output: Encoding, axis: int,
             sums: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> QuantizedProduct:
    if x.encoding.scale.ndim or output.scale.ndim:
        raise EncodingError("the input and the output of a product of codes have one scale each: quantize them per "
                            "tensor")
    if not all(isinstance(each.format, Int) for each in (x.encoding, weight.encoding, output)):
        raise EncodingError("a product of codes is one of integers: give input, weight and output integer formats")
    weight = _by_channel(weight)
    codes, w = x.codes.astype(np.int64), weight.codes.astype(np.int64)
    zero_x = np.int64(int(x.encoding.zero_point))
    zero_w = np.broadcast_to(weight.encoding.zero_point.astype(np.int64).reshape(-1, *[1] * (w.ndim - 1)), w.shape)
    channels: list[int] = [1] * codes.ndim
    channels[axis] = -1
    # Padding is the code Z_X, so that Z_X · Σ q_W is the same everywhere; what is summed holds 0 there.
    centred = codes - zero_x
    of_codes, of_zeros = (zero_x * each.reshape(len(w), -1).sum(1).reshape(channels) for each in (w, zero_w))
    products, zeros = sums(centred, w), sums(centred, zero_w)
    terms = Terms(products + of_codes, zeros + of_zeros, np.broadcast_to(of_codes, products.shape),
                  np.broadcast_to(of_zeros, products.shape))
    scale = accumulator_scale(x.encoding, weight.encoding)
    real = np.zeros(len(w)) if bias is None else array(bias)
    if real.ndim != 1:
        raise EncodingError(f"a bias has one number for each output channel, {len(w)}, not shape {list(real.shape)}")
    if len(real) != len(w):
        raise EncodingError(f"a bias of {len(real)} numbers does not fit {len(w)} output channels")
    if not np.isfinite(real).all():
        raise EncodingError("a bias holds NaN or Inf: mend it first")
    q_b = np.rint(real / scale.astype(np.float64)).clip(ACCUMULATOR.low, ACCUMULATOR.high).astype(np.int64)
    accumulator = products - zeros + q_b.reshape(channels)
    multiplier = dot_multiplier(x.encoding, weight.encoding, output)
    factor = multiplier.reshape(channels) if multiplier.ndim else multiplier
    format = output.format
    result = saturate(accumulator.astype(np.float32) * factor, int(output.zero_point), format.low, format.high, output)
    shifted = q_b - zero_x * w.reshape(len(w), -1).sum(1)
    return QuantizedProduct(Quantized(result, output), accumulator.astype(np.int32), q_b.astype(np.int32),
                            shifted.astype(np.int32), multiplier, terms)

"""Low-precision multiply, float32 accumulate: simulates what matrix units do with bf16, TF32 and FP8.

Both operands are rounded to a format; every product of two such numbers is exact in float32 for mantissas
of at most 11 bits with the hidden one (bf16, TF32, fp16, FP8 and smaller), and the sum is float32's. The order
of the sum is torch's, so results of two orders differ as float32 sums do; products never.
"""

from torch import Tensor
from torch.nn import functional as F

from fewbits.errors import EncodingError
from fewbits.numerics.floats import Float
from fewbits.numerics.rounding import Rounding, half_even


def matmul(a: Tensor, b: Tensor, format: Float, rounding: Rounding = half_even) -> Tensor:
    """a @ b with operands in `format`: float32 [..., N, K] by [..., K, M] to float32 [..., N, M].

    Raises EncodingError for a format whose products are not exact in float32.
    """
    return _operand(a, format, rounding) @ _operand(b, format, rounding)


def conv2d(x: Tensor, weight: Tensor, format: Float, bias: Tensor | None = None,
           stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
           dilation: int | tuple[int, int] = 1, groups: int = 1, rounding: Rounding = half_even) -> Tensor:
    """Convolution with operands in `format`: float32 [N, C, H, W] by [O, C/groups, h, w] to float32.

    bias: added in float32. Raises EncodingError as `matmul` does.
    """
    return F.conv2d(_operand(x, format, rounding), _operand(weight, format, rounding), bias,
                    stride, padding, dilation, groups)


def _operand(x: Tensor, format: Float, rounding: Rounding) -> Tensor:
    if format.mantissa_bits > 11:
        raise EncodingError(f"products of {format} are not exact in float32: use at most 11 mantissa bits")
    return format.nearest(x.float(), rounding)

"""Batch norm into the scales of weights and into biases, without changing a code but for its sign (eq. 15)."""

import numpy as np
import torch

from fewbits.errors import LoweringError
from fewbits.numerics.block import CHANNEL
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.program.accumulator import interval
from fewbits.quant.batch_norm import is_still


def scaled(name: str, weight: Quantized, gain: np.ndarray, offset: np.ndarray, x: Encoding) -> Quantized:
    """The weight times `gain`, in the same codes: their scale takes |gain|, a negative one turns the codes' signs.

    name: for errors; weight: [O, ...], one scale or one per output channel; gain, offset: float64 [O], so that the
    layer gives gain · products + offset; x: of the layer's input. Channels of gain 0 get codes of 0, as do those
    whose products cannot move the result by more than 2^-11 of its offset. Returns one scale per channel, and the
    format with one bit more where the lowest code was turned and has no opposite (-2 in int2).
    Raises LoweringError where that would be a ninth bit, or the weight has a zero point.
    """
    codes, encoding = weight.codes.astype(np.int64), weight.encoding
    if encoding.zero_point.any() and (gain < 0).any():
        raise LoweringError(f"weight {name!r} has a zero point, and its batch norm a negative scale, which turns "
                            "signs: make the weights symmetric")
    rows = np.broadcast_to(encoding.scale.reshape(-1).astype(np.float64), len(codes))
    scale = rows * np.abs(gain)
    reach = np.abs(codes.reshape(len(codes), -1)).sum(1) * max(map(abs, interval(x)))
    far = is_still(*(torch.from_numpy(part) for part in (gain, offset, rows * float(x.scale)))).numpy()
    still = (gain == 0) | (far & (reach <= 2**20)) | (scale < np.finfo(np.float32).tiny)
    signs = np.where(still, 0, np.where(gain < 0, -1, 1)).reshape(-1, *[1] * (codes.ndim - 1))
    turned = codes * signs
    format = encoding.format
    if turned.max(initial=0) > format.high and format.bits < 8:
        format = Int(format.bits + 1)
    if turned.max(initial=0) > format.high:
        raise LoweringError(f"weight {name!r} has a code {turned.max()} once a batch norm's negative scale has turned "
                            f"its sign, and {format} has none: use a narrow format, such as {format}-narrow")
    shape = (-1, *[1] * (codes.ndim - 1))
    fitted = np.where(still, rows, scale).astype(np.float32).reshape(shape)
    return Quantized(turned.astype(format.dtype), Encoding(format, fitted, 0, CHANNEL))

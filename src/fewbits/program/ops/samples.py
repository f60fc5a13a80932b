"""Shapes, encodings and codes that the examples of the records are made of."""

import numpy as np

from fewbits.numerics.block import CHANNEL, Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import ACCUMULATOR, parse
from fewbits.program.value import Shape

IMAGE: Shape = (None, 3, 6, 7)

X = Encoding(parse("uint8"), 0.02, 128)
Y = Encoding(parse("uint8"), 0.05, 3)
WIDE = Encoding(parse("int12"), 0.0017, -300)
SHARES = Encoding(parse("uint8"), 1 / 255, 0)
SUMS = Encoding(ACCUMULATOR, 0.02 * 0.01)
"""Of sums of products of numbers in X with weights of scale 0.01."""


def codes(shape: tuple[int, ...], encoding: Encoding, seed: int = 0) -> Quantized:
    """Codes from the whole of a format, one scale for all."""
    low, high = encoding.format.low, encoding.format.high
    return Quantized(np.random.default_rng(seed).integers(low, high + 1, shape), encoding)


def weight(shape: tuple[int, ...], format: str = "int8", block: Block = CHANNEL, zero_points: bool = False,
           seed: int = 0) -> Quantized:
    """Weight codes from the whole of a format, with scales of about 0.005 and, where asked for, zero points."""
    random, fitted = np.random.default_rng(seed), parse(format)
    scale = random.uniform(0.003, 0.01, block.scale_shape(shape))
    zero = random.integers(fitted.low // 4, fitted.high // 4 + 1, scale.shape) if zero_points else 0
    return Quantized(random.integers(fitted.low, fitted.high + 1, shape), Encoding(fitted, scale, zero, block))

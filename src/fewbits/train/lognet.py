"""Logarithmic quantization in training: power-of-two activations and, by choice, gradients.

Source: Miyashita et al. 2016, arXiv:1603.01025 (LogNet), §3 (LogQuant) and §5.1 (log-quantized gradients).
Its weights are those of method `current` with a format such as `log2-5` and `scale: power-of-two`.
"""


import torch

from fewbits.errors import EncodingError
from fewbits.numerics.levels import log_levels
from fewbits.quant.plan import Site
from fewbits.train.gradients import with_gradient
from fewbits.train.ranges import MovingRange

_FLOAT = 32


def log_quantized(gradient: torch.Tensor, bits: int) -> torch.Tensor:
    """0, or sign · 2^e with e the rounded log2 of the magnitude, the 2^(b−1) − 1 exponents ending at ⌈log2 max⌉.

    Magnitudes below the smallest power become it; 0 stays 0. gradient: any shape.
    """
    largest = gradient.abs().max().double()
    if not largest > 0:
        return gradient
    mantissa, exponent = torch.frexp(largest)
    full_scale = torch.ldexp(torch.ones_like(largest), exponent - (mantissa == 0.5).int())
    return (log_levels(bits).nearest(gradient.double() / full_scale) * full_scale).to(gradient.dtype)


class LogActivations(MovingRange):
    """A moving range for activations in powers of two. gradient_bits: of the gradient that flows back, 3 to 6 with
    the sign (`log(5)`); 32, the default, leaves it in float."""

    def __init__(self, site: Site, gradient_bits: float = _FLOAT):
        super().__init__(site)
        self.gradient_bits = int(gradient_bits)
        if self.gradient_bits != gradient_bits or (gradient_bits != _FLOAT and not 3 <= gradient_bits <= 6):
            raise EncodingError(f"tensor {site.name!r}: log-quantized gradients have 3 to 6 bits, or 32 for float, not "
                                f"{gradient_bits:g}")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if self.mode != "simulate" or not self.training or self.gradient_bits == _FLOAT:
            return y
        return with_gradient(y, lambda gradient: log_quantized(gradient, self.gradient_bits))

"""Half-wave Gaussian quantization: activations behind a batch norm, on levels fitted to half a normal distribution.

Source: Cai et al. 2017, arXiv:1702.00953 (HWGQ), §4, and the authors' released code.
"""

from typing import Any, Literal, get_args

import torch

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Levels
from fewbits.options import options_checked
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.quant.plan import Site

Backward = Literal["clipped", "vanilla", "log"]


class _HalfWave(torch.autograd.Function):
    """The nearest level, with the gradient of one of the paper's three half-wave rectifiers."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, levels: Levels, backward: Backward) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.highest, ctx.kind = levels.largest, backward
        return levels.nearest(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * half_wave_slope(x, ctx.highest, ctx.kind), None, None


@options_checked
def half_wave_slope(x: torch.Tensor, highest: float, backward: Backward) -> torch.Tensor:
    """Derivative of the rectifier that replaces the quantizer in the backward pass; of x's shape.

    0 at x ≤ 0 and 1 up to the highest level q_m; above it 1 (`vanilla`: a ReLU, eq. 9), 0 (`clipped`, eq. 10), or
    1 / (x − τ) with τ = q_m − 1 (`log`: the log-tailed ReLU, eq. 11).
    """
    above = {"vanilla": torch.ones_like(x), "clipped": torch.zeros_like(x),
             "log": 1 / (x - (highest - 1)).clamp(min=1.0)}[backward]
    return torch.where(x > highest, above, (x > 0).to(x.dtype))


class HalfWaveGaussian(FakeQuantize):
    """0 for x ≤ 0, else the nearest of 0.538, 1.076 and 1.614 (format `hwgq2`, scale 1): any x > 0 is at least 0.538.

    The levels have the least squared error for a standard normal x, so that the activation belongs behind a batch norm.
    backward: of the paper's three functions (`half_wave_slope`). Raises EncodingError for other formats.
    """

    @options_checked
    def __init__(self, site: Site, backward: Backward = "clipped"):
        super().__init__(site)
        assert backward in get_args(Backward)
        self.backward = backward
        if not isinstance(self.spec.format, Levels) or self.spec.format.signed:
            raise EncodingError(f"tensor {site.name!r}: HWGQ's activations are levels above 0 such as hwgq2, not "
                                f"{self.spec.format}")

    def adopt(self, calibrated: FakeQuantize) -> None:
        super().adopt(calibrated)
        with torch.no_grad():
            self.scale.fill_(1.0)
            self.zero_point.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate":
            return super().forward(x)
        quantized: Any = _HalfWave.apply(x, self.spec.format, self.backward)
        return quantized

"""Learned clipping bounds for activations after a ReLU.

Source: Choi et al. 2018, arXiv:1805.06085 (PACT), eq. 1 to 3; the bound is decayed like the weights (§3.1).
"""

import torch
from torch import nn

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Int
from fewbits.quant.fake_quantize import FakeQuantize, round_pass
from fewbits.quant.plan import Site

_FIRST_BOUND = 10.0


class ClippedActivation(FakeQuantize):
    """clip(x, 0, α), then k bits over [0, α]. The gradient of α is 1 where x ≥ α and 0 elsewhere; that of x is 1 where
    0 ≤ x < α. α starts at 10, or where calibration put the range, if that is lower."""

    def __init__(self, site: Site):
        super().__init__(site)
        if self.spec.format.signed or not isinstance(self.spec.format, Int):
            raise EncodingError(f"tensor {site.name!r}: PACT's activations are unsigned integers, not "
                                f"{self.spec.format}: use uint{self.spec.format.bits}")
        self.bound = nn.Parameter(torch.full((), _FIRST_BOUND))

    @property
    def steps(self) -> int:
        """2^k − 1."""
        return 2**self.spec.format.bits - 1

    def adopt(self, calibrated: FakeQuantize) -> None:
        super().adopt(calibrated)
        with torch.no_grad():
            self.bound.copy_((self.scale.max() * self.steps).clamp(max=_FIRST_BOUND))
            self.zero_point.zero_()

    @property
    def collapsed(self) -> bool:
        return bool((self.bound <= 0).any())

    def settle(self) -> None:
        self.bound.data.clamp_(min=1e-6)  # past autograd: between forward and backward it changes nothing
        self.scale.data.copy_(self.bound.data / self.steps)
        self.zero_point.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate":
            return super().forward(x)
        self.settle()
        clipped = torch.where(x >= self.bound, self.bound, x.clamp(min=0))
        scale = self.scale.detach()
        return round_pass(clipped / scale).clamp(0, self.steps) * scale

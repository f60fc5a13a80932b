"""DoReFa: weights, activations and gradients in a few bits each.

Source: Zhou et al. 2016, arXiv:1606.06160, with q_k(x) = rint((2^k − 1) x) / (2^k − 1) (eq. 5). One scale per layer.
"""

import torch

from fewbits.errors import EncodingError
from fewbits.quant.fake_quantize import FakeQuantize, fake_quantize, round_pass
from fewbits.quant.plan import Site
from fewbits.train.binary_connect import sign
from fewbits.train.from_weights import FromWeights
from fewbits.train.gradients import with_gradient

_MOST_BITS = 7  # of weights: 2^k − 1 odd integers on each side fit int8


class DoReFaWeights(FromWeights):
    """2 q_k(tanh w / (2 max |tanh w|) + 1/2) − 1 (eq. 9): odd integers at scale 1 / (2^k − 1). With one bit the sign
    times the mean magnitude of the layer (eq. 8), with the identity's gradient."""

    def __init__(self, site: Site):
        super().__init__(site)
        if self.spec.format.bits > _MOST_BITS or self.spec.block.sizes:
            raise EncodingError(f"tensor {site.name!r}: DoReFa weights have 1 to {_MOST_BITS} bits and one scale per "
                                f"tensor, not {self.spec.format} per {self.spec.block}")

    @property
    def _steps(self) -> int:
        return 2**self.spec.format.bits - 1

    def _unit(self, weight: torch.Tensor) -> torch.Tensor:
        squeezed = weight.tanh()
        return squeezed / (2 * squeezed.abs().max().clamp(min=1e-12)) + 0.5

    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.spec.format.bits == 1:
            return sign(weight), weight.abs().mean()
        codes = 2 * torch.round(self._steps * self._unit(weight)) - self._steps
        return codes, torch.full_like(self.scale, 1 / self._steps)

    def simulated(self, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        if self.spec.format.bits == 1:
            return super().simulated(weight, codes, scale)
        smooth = 2 * round_pass(self._steps * self._unit(weight)) - self._steps
        return smooth * scale


class DoReFaActivations(FakeQuantize):
    """q_k(clip(x, 0, 1)) (eq. 11): 2^k − 1 fixed steps from 0 to 1. gradient_bits: of the gradient that flows
    back, 32 for float."""

    def __init__(self, site: Site, gradient_bits: float = 32):
        super().__init__(site)
        self.gradient_bits = int(gradient_bits)
        if self.spec.format.signed:
            raise EncodingError(f"tensor {site.name!r}: DoReFa activations are unsigned, not {self.spec.format}: "
                                f"use uint{self.spec.format.bits}")

    def adopt(self, calibrated: FakeQuantize) -> None:
        super().adopt(calibrated)
        with torch.no_grad():
            self.scale.fill_(1 / (2**self.spec.format.bits - 1))
            self.zero_point.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate":
            return super().forward(x)
        y = fake_quantize(x, self.scale, 0, 0, 2**self.spec.format.bits - 1)
        if self.training and self.gradient_bits < 32:
            return with_gradient(y, self._back)
        return y

    def _back(self, gradient: torch.Tensor) -> torch.Tensor:
        noise = (torch.rand_like(gradient) - 0.5) / (2**self.gradient_bits - 1)
        return quantized_gradient(gradient, self.gradient_bits, noise)


def quantized_gradient(gradient: torch.Tensor, bits: int, noise: torch.Tensor) -> torch.Tensor:
    """2 m [q_k(g / 2m + 1/2 + noise) − 1/2], m = max |g| of each sample (eq. 12).

    gradient: [N, ...]; noise: of its shape, uniform within ±1/2 steps of q_k.
    """
    steps = 2**bits - 1
    largest = gradient.abs().flatten(1).max(1).values.reshape(-1, *[1] * (gradient.ndim - 1))
    unit = gradient / (2 * largest.clamp(min=torch.finfo(gradient.dtype).tiny)) + 0.5 + noise
    return 2 * largest * (torch.round(steps * unit.clamp(0, 1)) / steps - 0.5)

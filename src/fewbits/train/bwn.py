"""Binary weights with a scale: the mean magnitude of each block.

Source: Rastegari et al. 2016, arXiv:1603.05279 (XNOR-Net), §3.1 (BWN), eq. 6, and its gradient of §3.1.
"""

import torch

from fewbits.train.binary_connect import sign
from fewbits.train.from_weights import FromWeights


def mean_magnitude(weight: torch.Tensor, quantizer: FromWeights) -> torch.Tensor:
    """mean |w| of each block, in the shape of the scales."""
    values, axes = quantizer.spec.block.split(weight.abs())
    return values.mean(axes).reshape(quantizer.scale.shape)


class BinaryWeights(FromWeights):
    """α · sign(w), α = mean |w| of a filter. The gradient is (1/n + α · 1[|w| ≤ 1]) · g, n the weights of a filter."""

    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return sign(weight), mean_magnitude(weight, self)

    def simulated(self, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        count = weight.numel() / self.scale.numel()
        slope = 1 / count + scale * (weight.detach().abs() <= 1)
        return weight * slope + (codes * scale - weight * slope).detach()

    def after_step(self, parameter: torch.Tensor) -> None:
        """Clips the shadow to [-1, 1], as the authors' code does: beyond, the gradient is all but 0."""
        with torch.no_grad():
            parameter.clamp_(-1, 1)

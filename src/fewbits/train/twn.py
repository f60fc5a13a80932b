"""Ternary weights: -α, 0 and α.

Source: Li, Zhang and Liu 2016, arXiv:1605.04711 (TWN). Versions 1 and 2 and most code have Δ = 0.7 · mean |w|, the
later text 0.75; the exact minimum of the squared error is found by `exact`.
"""

from functools import partial

import torch

from fewbits.quant.plan import Site
from fewbits.train.bwn import mean_magnitude
from fewbits.train.from_weights import FromWeights


class TernaryWeights(FromWeights):
    """sign(w) where |w| > Δ, else 0, times α = mean |w| of those (eq. 3, 6). The gradient is the identity's.

    factor: Δ over mean |w|; None: the exact Δ of each block.
    """

    def __init__(self, site: Site, factor: float | None):
        super().__init__(site)
        self.factor = factor

    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        delta = exact_thresholds(weight, self) if self.factor is None else self.factor * mean_magnitude(weight, self)
        codes = weight.sign() * (weight.abs() > self.spec.block.expand(delta, weight.shape))
        values, axes = self.spec.block.split(weight.abs() * codes.abs())
        kept, _ = self.spec.block.split(codes.abs())
        scale = values.sum(axes) / kept.sum(axes).clamp(min=1)
        return codes, scale.reshape(self.scale.shape)


def exact_thresholds(weight: torch.Tensor, quantizer: FromWeights) -> torch.Tensor:
    """The Δ of each block that leaves the least squared error: the k largest |w| are kept, where (their sum)² / k is
    the largest (eq. 5 without its approximation). Half way to the next smaller one, in the shape of the scales."""
    rows = quantizer.spec.block.rows(weight.abs())
    ordered = rows.double().sort(1, descending=True).values
    counts = torch.arange(1, rows.shape[1] + 1, device=weight.device)
    best = (ordered.cumsum(1).square() / counts).argmax(1, keepdim=True)
    below = torch.cat([ordered, torch.zeros_like(ordered[:, :1])], 1).gather(1, best + 1)
    delta = ((ordered.gather(1, best) + below) / 2).to(weight.dtype)
    return torch.minimum(delta, torch.nextafter(ordered.gather(1, best).to(weight.dtype),
                                                torch.zeros_like(delta))).reshape(quantizer.scale.shape)


Ternary70 = partial(TernaryWeights, factor=0.7)
Ternary75 = partial(TernaryWeights, factor=0.75)
TernaryExact = partial(TernaryWeights, factor=None)

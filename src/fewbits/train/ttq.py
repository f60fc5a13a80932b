"""Trained ternary weights: -W_n, 0 and W_p, both learned, one pair per layer.

Source: Zhu et al. 2016, arXiv:1612.01064 (TTQ): Δ = 0.05 · max |w| (eq. 9), gradients of eq. 7 and 8. The paper prints
no sign for the gradient of W_n; the true derivative, used here and in the authors' code, is minus the sum.
"""

from typing import Any

import torch
from torch import nn

from fewbits.quant.fake_quantize import round_pass
from fewbits.quant.plan import Site
from fewbits.train.from_weights import FromWeights

_LARGEST = 127
_SHARE = 0.05


class _Trained(torch.autograd.Function):
    """The ternary weights; the shadow weight's gradient is multiplied by W_n, 1 or W_p, by where it lies."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ternary: torch.Tensor, negative: torch.Tensor,
                positive: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(ternary, negative, positive)
        return torch.where(ternary > 0, positive, torch.where(ternary < 0, -negative, torch.zeros_like(negative)))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor, torch.Tensor]:
        (g,), (ternary, negative, positive) = gradients, ctx.saved_tensors
        shadow = torch.where(ternary > 0, g * positive, torch.where(ternary < 0, g * negative, g))
        return shadow, None, -(g * (ternary < 0)).sum(), (g * (ternary > 0)).sum()


def trained_ternary(weight: torch.Tensor, ternary: torch.Tensor, negative: torch.Tensor,
                    positive: torch.Tensor) -> torch.Tensor:
    """-negative, 0 or positive where `ternary` says so (eq. 6), with the paper's gradients."""
    trained: Any = _Trained.apply(weight, ternary, negative, positive)
    return trained


def ternary_of(weight: torch.Tensor) -> torch.Tensor:
    """-1, 0 or 1: the sign where |w| exceeds Δ (eq. 9)."""
    return weight.sign() * (weight.abs() > _SHARE * weight.abs().max())


class TrainedTernary(FromWeights):
    """One number per sign and layer. In the program the larger of the two is 127 steps and the other is rounded to
    whole steps of it, in the simulation too."""

    def __init__(self, site: Site):
        super().__init__(site)
        self.negative, self.positive = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))

    def _steps(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(size of a step, W_n and W_p in steps): the signs may not change, so neither is below one step."""
        step = torch.maximum(self.negative, self.positive).detach().clamp(min=1e-6) / _LARGEST
        negative, positive = (round_pass(number / step).clamp(1, _LARGEST) for number in (self.negative, self.positive))
        return step, negative, positive

    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        step, negative, positive = self._steps()
        ternary = ternary_of(weight)
        return torch.where(ternary > 0, positive, -negative) * ternary.abs(), step.expand(self.scale.shape)

    def simulated(self, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        step, negative, positive = self._steps()
        return trained_ternary(weight, ternary_of(weight.detach()), negative * step, positive * step)

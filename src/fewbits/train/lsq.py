"""Learned step sizes (LSQ), and learned offsets with them (LSQ+).

Source: Esser et al. 2020, arXiv:1902.08153 (LSQ), eq. 1 to 5; Bhalgat et al. 2020, arXiv:2004.09576 (LSQ+), eq. 4 to 6.
"""

from math import sqrt
from typing import Any

import torch
from torch import nn

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Int
from fewbits.quant.fake_quantize import FakeQuantize, round_pass
from fewbits.quant.plan import Site

_SMALLEST = 1e-12


def scaled_gradient(x: torch.Tensor, factor: float) -> torch.Tensor:
    """The identity, with a gradient multiplied by `factor` (LSQ, appendix A)."""
    return x * factor + (x - x * factor).detach()


def clipped(v: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """v within [low, high], which takes the gradient where v lies on or beyond it (LSQ, eq. 3)."""
    low, high = low.to(v.dtype), high.to(v.dtype)
    return torch.where(v <= low, low, torch.where(v >= high, high, v))


class _OnLearnedGrid(torch.autograd.Function):
    """rint(clip(x / s, low, high)) · s with eq. 3 and 5 written out: as automatic differentiation gives them, in half
    the time."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
        v = x / scale
        rounded = v.clamp(low, high).round_()
        inside = (v > low) & (v < high)
        ctx.save_for_backward(inside, rounded - v.mul_(inside), scale)
        return rounded * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        inside, slope, scale = ctx.saved_tensors
        return gradients[0] * inside, (gradients[0] * slope).sum_to_size(scale.shape), None, None


class LearnedStep(FakeQuantize):
    """The scale is a parameter. Its gradient is −v/s + rint(v/s) inside the range and the bound outside (eq. 3), times
    1 / √(N · Q_p), N the weights, or the features of one sample. It starts at 2 · mean |v| / √Q_p (§2.1) of the first
    tensor that trains."""

    started: torch.Tensor

    def __init__(self, site: Site):
        super().__init__(site)
        if not isinstance(self.spec.format, Int):
            raise EncodingError(f"tensor {site.name!r}: a step is learned between integers, not in {self.spec.format}")
        del self._buffers["scale"]
        self.scale = nn.Parameter(torch.full(tuple(self.zero_point.shape), torch.nan))
        self.register_buffer("started", torch.tensor(False))

    def adopt(self, calibrated: FakeQuantize) -> None:
        super().adopt(calibrated)
        self.zero_point.zero_()  # the paper's quantizer has 0 at code 0

    @property
    def highest(self) -> int:
        """Q_p, the largest code."""
        return max(self.spec.format.high, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate":
            return super().forward(x)
        if self.training and not self.started:
            self.start(x.detach())
            self.started.fill_(True)
        self.settle()
        scale = self.spec.block.expand(scaled_gradient(self.scale, self.share(x)), x.shape)
        return self.on_grid(x, scale)

    @property
    def collapsed(self) -> bool:
        return bool((self.scale <= 0).any())

    def settle(self) -> None:
        self.scale.data.clamp_(min=_SMALLEST)  # past autograd: between forward and backward it changes nothing

    def share(self, x: torch.Tensor) -> float:
        """1 / √(N · Q_p)."""
        count = x.numel() if self.kind == "weight" else x[0].numel()
        return 1 / sqrt(count / self.scale.numel() * self.highest)

    def start(self, x: torch.Tensor) -> None:
        """The first scale. Zeros alone say nothing of it: a step of next to nothing would hold every number that is
        learned at its end, where weights get no gradient. They take what torch's own initial weights of such a layer
        would have, uniform within ±1/√K for K inputs of a sum; activations what numbers within ±1 would."""
        values, axes = self.spec.block.split(x.abs())
        usual = 0.5 / sqrt(max(x[0].numel(), 1)) if self.kind == "weight" else 0.5
        with torch.no_grad():
            mean = values.mean(axes)
            mean = torch.where(mean > 0, mean, usual)
            self.scale.copy_((2 * mean / sqrt(self.highest)).reshape(self.scale.shape).clamp(min=_SMALLEST))
            self.zero_point.zero_()

    def on_grid(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Fake-quantizes x with that scale."""
        moved: Any = _OnLearnedGrid.apply(x, scale, self.spec.format.low, self.spec.format.high)
        return moved


class LearnedStepAndOffset(LearnedStep):
    """LSQ+: the offset β learns too, for activations below 0. It acts through the zero point rint(−β / s), so that the
    number 0 stays exact and what learns is what runs; the paper's own β is real. Starts at the range of the first
    tensor."""

    def __init__(self, site: Site):
        super().__init__(site)
        self.offset = nn.Parameter(torch.zeros(tuple(self.zero_point.shape)))

    def start(self, x: torch.Tensor) -> None:
        format = self.spec.format
        values, axes = self.spec.block.split(x)
        low, high = values.amin(axes).clamp(max=0), values.amax(axes).clamp(min=0)
        high = torch.where(high > low, high, 1.0)  # zeros alone say nothing of it
        with torch.no_grad():
            self.scale.copy_(((high - low) / (format.high - format.low)).reshape(self.scale.shape).clamp(min=_SMALLEST))
            self.offset.copy_(low.reshape(self.offset.shape) - format.low * self.scale)

    def settle(self) -> None:
        super().settle()
        with torch.no_grad():
            zero_point = (-self.offset / self.scale).clamp(self.spec.format.low, self.spec.format.high).round()
            self.zero_point.copy_(zero_point.nan_to_num().int())

    def on_grid(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        format = self.spec.format
        assert isinstance(format, Int), "checked when made"
        offset = self.spec.block.expand(scaled_gradient(self.offset, self.share(x)), x.shape)
        zero_point = round_pass((-offset / scale).clamp(format.low, format.high))
        return round_pass(clipped(x / scale, format.low - zero_point, format.high - zero_point)) * scale

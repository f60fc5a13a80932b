"""Learned step sizes (LSQ), and learned offsets with them (LSQ+).

Source: Esser et al. 2020, arXiv:1902.08153 (LSQ), eq. 1 to 5; Bhalgat et al. 2020, arXiv:2004.09576 (LSQ+), eq. 4 to 6.
The paper's initial step is coarse: at 8 bits some 0.14 standard deviations, several times what fits.
`LearnedStepAsPublished` has it by name, and `LearnedStep` starts from least squares (`initial_step.py`).
"""

from math import sqrt
from typing import Any

import torch
from torch import nn

from fewbits.errors import EncodingError
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Int
from fewbits.quant.fake_quantize import FakeQuantize, round_pass, within
from fewbits.quant.plan import Site
from fewbits.train.gradients import with_gradient
from fewbits.train.initial_step import least_squares_step, paper_step

_SMALLEST = 1e-12


def clipped(v: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """v within [low, high], which takes the gradient where v lies on or beyond it (LSQ, eq. 3)."""
    low, high = low.to(v.dtype), high.to(v.dtype)
    return torch.where(v <= low, low, torch.where(v >= high, high, v))


class _OnLearnedGrid(torch.autograd.Function):
    """rint(clip(x / s, low, high)) · s with eq. 3 and 5 written out: as automatic differentiation gives them, in a
    third of the time."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
        v = x / scale
        rounded = v.clamp(low, high).round_()
        ctx.save_for_backward(v, rounded, scale)
        ctx.bounds = low, high
        return rounded * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        (g,), (v, rounded, scale) = gradients, ctx.saved_tensors
        inner = within(g, v, *ctx.bounds)
        outer = g - inner  # the gradient of what lies at a bound or beyond it, where the slope is the bound
        slope = (rounded - v).mul_(inner).add_(outer.mul_(rounded))
        return inner, slope.sum_to_size(scale.shape), None, None


class LearnedStep(FakeQuantize):
    """The scale s learns. Its gradient is −v/s + rint(v/s) inside the range and the bound outside (eq. 3), times
    1 / √(N · Q_p), N the weights, or the features of one sample. It starts at the least squared error of the first
    tensor that trains.

    What is stored is `factor`, s in units of the first step. Adam, whose updates are of one size, so changes a step by
    a share of its size, whatever that is. Gradient descent moves `LearnedStepAsPublished` as the paper has it, and a
    step of another size by the same share of it: 1 / √(N · Q_p) is balanced for the paper's size (§2.2), and at 8 bits
    a tenth of it would be overshot. Raises EncodingError for formats that are not integers.
    """

    started: torch.Tensor
    unit: torch.Tensor
    published: torch.Tensor
    """The first step by the paper's rule."""
    decays = False

    def __init__(self, site: Site):
        super().__init__(site)
        if not isinstance(self.spec.format, Int):
            raise EncodingError(f"tensor {site.name!r}: a step is learned between integers, not in {self.spec.format}")
        self.factor = nn.Parameter(torch.ones(tuple(self.zero_point.shape)))
        self.register_buffer("unit", torch.full(tuple(self.zero_point.shape), torch.nan))
        self.register_buffer("published", torch.full(tuple(self.zero_point.shape), torch.nan))
        self.register_buffer("started", torch.tensor(False))

    def adopt(self, calibrated: FakeQuantize) -> None:
        super().adopt(calibrated)
        self.begin(calibrated.scale, calibrated.scale)
        self.zero_point.zero_()  # the paper's quantizer has 0 at code 0

    def begin(self, step: torch.Tensor, published: torch.Tensor) -> None:
        """Sets the step that is learned from, and the paper's."""
        with torch.no_grad():
            self.unit.copy_(step)
            self.published.copy_(published)
            self.factor.fill_(1.0)
            self.scale.copy_(step)

    @FakeQuantize.encoding.setter
    def encoding(self, encoding: Encoding) -> None:
        FakeQuantize.encoding.__set__(self, encoding)
        self.begin(self.scale.clone(), self.scale.clone())

    @property
    def highest(self) -> int:
        """Q_p, the largest code."""
        return max(self.spec.format.high, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate":
            return super().forward(x)
        if self.training and not self.started:
            self.start(self.processes.whole(x.detach()) if self.kind == "activation" else x.detach())
            self.started.fill_(True)
        self.settle()
        return self.on_grid(x, self.spec.block.expand(self.learned(self.factor, x), x.shape))

    def learned(self, in_units: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """What is stored in units of the first step, with a gradient for which that moves as the class says."""
        share = self.share(x) / (self.unit * self.published)
        return with_gradient(in_units, lambda gradient: gradient * share) * self.unit

    @property
    def collapsed(self) -> bool:
        return bool((self.factor <= 0).any())

    def settle(self) -> None:
        self.factor.data.clamp_(min=_SMALLEST)  # past autograd: between forward and backward it changes nothing
        self.scale.copy_(self.factor.data * self.unit)

    def share(self, x: torch.Tensor) -> float:
        """1 / √(N · Q_p)."""
        count = x.numel() if self.kind == "weight" else x[0].numel()
        return 1 / sqrt(count / self.scale.numel() * self.highest)

    def start(self, x: torch.Tensor) -> None:
        """The first scale. Zeros alone say nothing of it: a step of next to nothing would hold every number that is
        learned at its end, where weights get no gradient. They take what torch's own initial weights of such a layer
        would have, uniform within ±1/√K for K inputs of a sum; activations what numbers within ±1 would."""
        usual = 0.5 / sqrt(max(x[0].numel(), 1)) if self.kind == "weight" else 0.5
        rows = self.spec.block.rows(x)
        steps = (torch.where(step > 0, step, 2 * usual / sqrt(self.highest)).reshape(self.scale.shape)
                 for step in (self.first_step(rows), paper_step(rows, self.highest)))
        self.begin(*(step.clamp(min=_SMALLEST) for step in steps))
        self.zero_point.zero_()

    def first_step(self, rows: torch.Tensor) -> torch.Tensor:
        """Of each row [G, M]; 0 where it says nothing of a step."""
        format = self.spec.format
        assert isinstance(format, Int), "checked when made"
        return least_squares_step(rows, format.low, format.high)

    def on_grid(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Fake-quantizes x with that scale."""
        moved: Any = _OnLearnedGrid.apply(x, scale, self.spec.format.low, self.spec.format.high)
        return moved


class LearnedStepAsPublished(LearnedStep):
    """As `LearnedStep`, from the paper's start: 2 · mean |v| / √Q_p (§2.1)."""

    def first_step(self, rows: torch.Tensor) -> torch.Tensor:
        return paper_step(rows, self.highest)


class LearnedStepAndOffset(LearnedStep):
    """LSQ+: the offset β learns too, for activations below 0. It acts through the zero point rint(−β / s), so that the
    number 0 stays exact and what learns is what runs; the paper's own β is real. Starts at the range of the first
    tensor. `offset` is β in units of the first step."""

    def __init__(self, site: Site):
        super().__init__(site)
        self.offset = nn.Parameter(torch.zeros(tuple(self.zero_point.shape)))

    def start(self, x: torch.Tensor) -> None:
        format = self.spec.format
        values, axes = self.spec.block.split(x)
        low, high = values.amin(axes).clamp(max=0), values.amax(axes).clamp(min=0)
        high = torch.where(high > low, high, 1.0)  # zeros alone say nothing of it
        step = ((high - low) / (format.high - format.low)).reshape(self.scale.shape).clamp(min=_SMALLEST)
        self.begin(step, step)
        with torch.no_grad():
            self.offset.copy_(low.reshape(self.offset.shape) / self.unit - format.low)

    def settle(self) -> None:
        super().settle()
        with torch.no_grad():
            zero_point = (-self.offset / self.factor).clamp(self.spec.format.low, self.spec.format.high).round()
            self.zero_point.copy_(zero_point.nan_to_num().int())

    def on_grid(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        format = self.spec.format
        assert isinstance(format, Int), "checked when made"
        offset = self.spec.block.expand(self.learned(self.offset, x), x.shape)
        zero_point = round_pass((-offset / scale).clamp(format.low, format.high))
        return round_pass(clipped(x / scale, format.low - zero_point, format.high - zero_point)) * scale

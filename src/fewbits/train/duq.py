"""DuQ: learned clipping bounds and, for weights, a learned output scale of their own.

Source: Park and Yoo 2020, arXiv:2008.04693 (PROFIT), §4, and the authors' released code: what is stored is ρ with
a = softplus(ρ), which is above 0 wherever ρ goes. The paper's start, 0.9 · max |w| and the 95th percentile, is that of
`DualWeightsAsPublished` and `DualActivationsAsPublished`; the others start at the least squared error
(`initial_step.py`).
"""

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Int
from fewbits.quant.fake_quantize import FakeQuantize, round_pass
from fewbits.quant.plan import Site
from fewbits.train.from_weights import FromWeights
from fewbits.train.initial_step import least_squares_step
from fewbits.train.lsq import clipped

_SHARE = 0.9  # of the largest magnitude: the first bound of weights
_PERCENTILE = 0.95
_SMALLEST = 1e-6


def inverse_softplus(a: torch.Tensor) -> torch.Tensor:
    """ρ with softplus(ρ) = log(1 + e^ρ) = a, for a > 0."""
    return a + torch.log(-torch.expm1(-a))


class DualWeights(FromWeights):
    """c · rint(n · clip(w / a, −1, 1)) / n, n = 2^(b−1) − 1 steps a side; the straight-through gradient for the
    rounding, automatic for all else. a and c learn apart, both from the least squared error of the first weights that
    train.

    Raises EncodingError for formats other than signed integers of 2 to 8 bits, and for more than one scale per tensor.
    """

    started: torch.Tensor
    decays = False

    def __init__(self, site: Site):
        super().__init__(site)
        format = self.spec.format
        if not (isinstance(format, Int) and format.signed and 2 <= format.bits <= 8) or self.spec.block.sizes:
            raise EncodingError(f"tensor {site.name!r}: DuQ's weights are int2 to int8 with one scale per tensor, not "
                                f"{format} per {self.spec.block}")
        self.bound, self.reach = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("started", torch.tensor(False))

    @property
    def steps(self) -> int:
        """n: steps from 0 to the bound."""
        return 2 ** (self.spec.format.bits - 1) - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "simulate" and not self.started:
            self.start(x.detach())
        return super().forward(x)

    def start(self, weight: torch.Tensor) -> None:
        """The first bound and reach."""
        reach = self.first_bound(weight)
        first = inverse_softplus(torch.where(reach > 0, reach, 1.0))
        with torch.no_grad():
            self.bound.copy_(first)
            self.reach.copy_(first)
            self.started.fill_(True)

    def first_bound(self, weight: torch.Tensor) -> torch.Tensor:
        """Where clipping begins to begin with; 0 for zeros alone."""
        return least_squares_step(weight.reshape(1, -1), -self.steps, self.steps)[0] * self.steps

    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        units = (weight / F.softplus(self.bound)).clamp(-1, 1)
        return torch.round(units * self.steps), (F.softplus(self.reach) / self.steps).expand(self.scale.shape)

    def simulated(self, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        units = F.hardtanh(weight / F.softplus(self.bound))
        return round_pass(units * self.steps) * (F.softplus(self.reach) / self.steps)


class DualWeightsAsPublished(DualWeights):
    """As `DualWeights`, from the authors' start: 0.9 · max |w|."""

    def first_bound(self, weight: torch.Tensor) -> torch.Tensor:
        return _SHARE * weight.abs().max()


class DualActivations(FakeQuantize):
    """a · rint(n · clip(x / a, −z/n, 1 − z/n)) / n with n = 2^b − 1 and z steps below 0.

    below: how far numbers reach below 0, for h-swish, whose values begin at −3/8 (`duq(0.375)`): z = rint(below·n / a).
    The paper shifts by 3/8 and pads with −3/8; here the number 0 is a code, so that padding stays 0. Its separate
    output scale c is a here: a value of a program has one scale. Starts at the least squared error of the first tensor
    that trains. Raises EncodingError for other formats than unsigned integers.
    """

    started: torch.Tensor
    decays = False

    def __init__(self, site: Site, below: float = 0.0):
        super().__init__(site)
        if not isinstance(self.spec.format, Int) or self.spec.format.signed or below < 0:
            raise EncodingError(f"tensor {site.name!r}: DuQ's activations are unsigned integers that reach 0 or more "
                                f"below 0, not {self.spec.format} and {below:g}: use uint{self.spec.format.bits}")
        self.below = below
        self.bound = nn.Parameter(torch.zeros(()))
        self.register_buffer("started", torch.tensor(False))

    @property
    def steps(self) -> int:
        """n, the number of steps."""
        return 2**self.spec.format.bits - 1

    def adopt(self, calibrated: FakeQuantize) -> None:
        super().adopt(calibrated)
        self._begin(self.scale.max() * self.steps)

    def _begin(self, reach: torch.Tensor) -> None:
        with torch.no_grad():
            self.bound.copy_(inverse_softplus(torch.where(reach > 0, reach, 1.0).clamp(min=_SMALLEST)))

    def start(self, x: torch.Tensor) -> None:
        """The first bound, what reaches below 0 included."""
        self._begin(self.first_bound(x.reshape(-1)))

    def first_bound(self, x: torch.Tensor) -> torch.Tensor:
        """Where clipping begins to begin with, above the least number; 0 for zeros alone."""
        return least_squares_step(x[None] + self.below, 0, self.steps)[0] * self.steps

    def settle(self) -> None:
        scale = F.softplus(self.bound.detach()).clamp(min=_SMALLEST) / self.steps
        self.scale.copy_(scale.expand(self.scale.shape))
        self.zero_point.copy_(torch.round(self.below / self.scale).clamp(0, self.steps - 1).int())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate":
            return super().forward(x)
        if self.training and not self.started:
            self.start(self.processes.whole(x.detach()))
            self.started.fill_(True)
        self.settle()
        bound = F.softplus(self.bound).clamp(min=_SMALLEST)
        zero = self.zero_point.to(x.dtype)
        units = clipped(x / bound, -zero / self.steps, 1 - zero / self.steps)
        return round_pass(units * self.steps) * (bound / self.steps)


class DualActivationsAsPublished(DualActivations):
    """As `DualActivations`, from the authors' start: the 95th percentile."""

    def first_bound(self, x: torch.Tensor) -> torch.Tensor:
        return torch.quantile(x[::max(1, len(x) // 2**20)], _PERCENTILE) + self.below

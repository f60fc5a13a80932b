"""Ranges updated during training: of weights from their current values, of activations by a moving average.

Source: Jacob et al. 2018, arXiv:1712.05877, §3.1: activation ranges by exponential moving averages, and activations
not quantized at all before a number of steps.
"""

import numpy as np
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.encoding import Quantized
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.quant.plan import Site
from fewbits.ranges.scale import encoding_for


class CurrentRange(FakeQuantize):
    """Range of a weight's current values per block, turned into a scale by ranges/scale.py."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "simulate" and bool(torch.isfinite(x).all()):  # else the loss says where it began
            self._follow(x.detach())
        return super().forward(x)

    def integers(self, real: np.ndarray) -> Quantized:
        self._follow(torch.tensor(real))
        return super().integers(real)

    def _follow(self, x: torch.Tensor) -> None:
        values, axes = self.spec.block.split(x)
        low, high = (bound.reshape(self.scale.shape).cpu().numpy() for bound in (values.amin(axes), values.amax(axes)))
        self.encoding = encoding_for(low, high, self.spec.format, self.spec.symmetric, self.spec.scale, self.spec.block)


class MovingRange(FakeQuantize):
    """Smallest and largest number of each batch, averaged: new = momentum · old + (1 − momentum) · batch.

    delay: steps of training before anything is quantized; the averages run from the first.
    """

    low: torch.Tensor
    high: torch.Tensor
    steps: torch.Tensor

    def __init__(self, site: Site, momentum: float = 0.99, delay: float = 0):
        super().__init__(site)
        if not 0 <= momentum < 1 or delay < 0:
            raise EncodingError(f"tensor {site.name!r}: a moving range has a momentum from 0 to below 1 and a delay of "
                                f"steps, not {momentum:g} and {delay:g}")
        self.momentum, self.delay = momentum, int(delay)
        self.register_buffer("low", torch.zeros(self.scale.shape))
        self.register_buffer("high", torch.zeros(self.scale.shape))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate":
            return super().forward(x)
        if self.training:
            self._follow(x.detach())
            if self.steps <= self.delay:
                return x
        return super().forward(x)

    def _follow(self, x: torch.Tensor) -> None:
        values, axes = self.spec.block.split(x)
        low, high = (bound.reshape(self.scale.shape) for bound in (values.amin(axes), values.amax(axes)))
        low, high = self.processes.lowest(low), self.processes.highest(high)
        if not bool(torch.isfinite(high - low).all()):
            return  # the loss is not finite either, and says where it began
        keep = self.momentum if self.steps else 0.0
        self.low.mul_(keep).add_(low, alpha=1 - keep)
        self.high.mul_(keep).add_(high, alpha=1 - keep)
        self.steps += 1
        self.encoding = encoding_for(self.low.cpu().numpy(), self.high.cpu().numpy(), self.spec.format,
                                     self.spec.symmetric, self.spec.scale, self.spec.block)

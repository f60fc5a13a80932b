"""Fine-tuning with stochastically rounded weights: float shadows, few-bit numbers drawn anew in every step.

Source: Gysel et al. 2016, arXiv:1604.03168 (Ristretto), §4.3; Gupta et al. 2015, arXiv:1502.02551, §3 (the rounding).
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Format, Int
from fewbits.numerics.rounding import by_chance
from fewbits.quant.fake_quantize import FakeQuantize, on_steps
from fewbits.quant.plan import Site


class _BetweenNeighbours(torch.autograd.Function):
    """One of the two numbers of a format that lie around x, with the gradient of the identity inside its range."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, numbers: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward((x >= numbers[0]) & (x <= numbers[-1]))
        return between_neighbours(x, numbers, draw)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None


def between_neighbours(x: torch.Tensor, numbers: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
    """The number above x with the probability of how far x lies on the way to it, else the one below; the mean is x.

    x: any shape; numbers: ascending [n]; draw: uniform in [0, 1), of x's shape. Numbers outside are clipped.
    """
    inside = x.clamp(numbers[0], numbers[-1])
    above = torch.searchsorted(numbers, inside.contiguous()).clamp(1, len(numbers) - 1)
    return by_chance(inside, numbers[above - 1], numbers[above], draw)


class StochasticWeights(FakeQuantize):
    """A weight rounded stochastically while it trains, and to the nearest (the recipe's `rounding:`) in evaluation and
    in the program. Its range stays where calibration found it, as Ristretto writes the place of the point into the
    quantized network once: a scale that followed the shadow would double as soon as one weight passes a power of two,
    and at 2 bits round all others to 0. format: integers, minifloats or tables, symmetric. Raises EncodingError for
    asymmetric integers."""

    def __init__(self, site: Site):
        super().__init__(site)
        if isinstance(self.spec.format, Int) and not self.spec.symmetric:
            raise EncodingError(f"tensor {site.name!r}: stochastically rounded weights are symmetric: say "
                                "`symmetric: true`")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate" or not self.training:
            return super().forward(x)
        scale = self.spec.block.expand(self.scale, x.shape)
        numbers = torch.tensor(_numbers(self.spec.format), dtype=x.dtype, device=x.device)
        draw = torch.rand(x.shape, dtype=x.dtype).to(x.device)
        units: Any = _BetweenNeighbours.apply(x / scale, numbers, draw)
        form = self.integer_form
        if form is None or isinstance(self.spec.format, Int):
            return units * scale
        return on_steps(units, form) * (scale * form.step)


@lru_cache(maxsize=32)
def _numbers(format: Format) -> np.ndarray:
    """The finite numbers of a format, each once, ascending; cached."""
    numbers = format.values()
    return np.unique(numbers[np.isfinite(numbers)])

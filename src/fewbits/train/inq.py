"""Incremental network quantization: powers of two and 0, the largest weights first, in portions that stay frozen.

Source: Zhou et al. 2017, arXiv:1702.03044 (INQ), §2.1 to 2.3.
"""

from itertools import pairwise

import torch

from fewbits.errors import EncodingError
from fewbits.numerics.block import TENSOR
from fewbits.numerics.formats import Levels
from fewbits.quant.plan import Site
from fewbits.train.from_weights import FromWeights

_PORTIONS = (0.5, 0.75, 0.875, 1.0)
_LARGEST = 127
_FREE = -128  # no code of a frozen weight


class IncrementalPowers(FromWeights):
    """Weights quantized to 0 or ±2^e portion by portion; the rest stay float and are trained to compensate.

    format: `inq-2` to `inq-5`, one scale per tensor. Its b bits count one for the zero: n1 = ⌊log2(4 max|w| / 3)⌋ is
    the highest exponent (eq. 2) and 2^(b−2) exponents end there (eq. 3). A weight goes to the nearest of these numbers,
    ties to the larger magnitude (eq. 4). With `inq-5` the highest number is 127 steps of the lowest and not 128, in
    the simulation as in the program: what a signed 8-bit integer holds.

    portions: ascending shares of all weights, the last 1. As training goes on (`progress`), so large a share of them,
    the largest magnitudes first (§2.2, the pruning-inspired order), takes its codes and is frozen; n portions
    divide the training into n equal stages, the first of which begins with it. The gradient of a frozen weight
    is 0, of a free one that of the identity (eq. 7). In evaluation mode all weights have codes, as when lowered.
    Raises EncodingError for another format or block, and for portions that do not ascend to 1.
    """

    frozen: torch.Tensor
    stage: torch.Tensor

    def __init__(self, site: Site, *portions: float):
        super().__init__(site)
        self.portions = portions or _PORTIONS
        name = str(self.spec.format)
        if not isinstance(self.spec.format, Levels) or name not in ("inq-2", "inq-3", "inq-4", "inq-5"):
            raise EncodingError(f"tensor {site.name!r}: INQ's weights are inq-2, inq-3, inq-4 or inq-5, not {name}")
        if self.spec.block != TENSOR:
            raise EncodingError(f"tensor {site.name!r}: INQ has one scale per tensor, not per {self.spec.block}: use "
                                "`block: tensor`")
        ascending = all(a < b for a, b in pairwise((0.0, *self.portions)))
        if not ascending or self.portions[-1] != 1:
            raise EncodingError(f"tensor {site.name!r}: INQ's portions ascend from above 0 to 1, as in inq(0.5,1), "
                                f"not {', '.join(f'{portion:g}' for portion in self.portions)}")
        shape = [0 if size is None else size for size in site.shape]
        self.register_buffer("frozen", torch.full(shape, _FREE, dtype=torch.int8))
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))

    @property
    def _levels(self) -> int:
        """How many exponents there are, 2^(b−2)."""
        return len(self.spec.format.values()) // 2

    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = self._lowest(weight)
        free = self.frozen == _FREE
        return torch.where(free, self._steps(weight / scale), self.frozen.to(weight.dtype)), scale

    def simulated(self, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        quantized = codes * scale
        if not self.training:
            return weight + (quantized - weight).detach()
        return torch.where(self.frozen == _FREE, weight, quantized)

    def progress(self, done: float, parameter: torch.Tensor) -> None:
        wanted = min(int(done * len(self.portions)) + 1, len(self.portions))
        while int(self.stage) < wanted:
            self.freeze(self.portions[int(self.stage)], parameter)
            self.stage += 1

    def freeze(self, share: float, parameter: torch.Tensor) -> None:
        """Quantizes and freezes that share of all weights: those already frozen, then the largest of the free ones."""
        with torch.no_grad():
            codes, scale = self._refreshed(parameter)
            free = (self.frozen == _FREE).reshape(-1)
            count = round(share * free.numel()) - int((~free).sum())
            if count > 0:
                magnitudes = torch.where(free, parameter.abs().reshape(-1), -1.0)
                chosen = magnitudes.sort(descending=True, stable=True).indices[:count]
                self.frozen.view(-1)[chosen] = codes.reshape(-1)[chosen].to(torch.int8)
            self._restore(parameter, scale)

    def after_step(self, parameter: torch.Tensor) -> None:
        """Restores frozen weights, which momentum and weight decay have moved."""
        with torch.no_grad():
            self._restore(parameter, self.scale)

    def _restore(self, parameter: torch.Tensor, scale: torch.Tensor) -> None:
        parameter.copy_(torch.where(self.frozen == _FREE, parameter, self.frozen.to(parameter.dtype) * scale))

    def _lowest(self, weight: torch.Tensor) -> torch.Tensor:
        """2^n2, the smallest number above 0; fixed once weights are frozen, so that their codes keep their meaning."""
        if int(self.stage):
            return self.scale
        largest = weight.abs().max().double()
        highest = torch.frexp(4 * largest / 3).exponent - 1
        lowest = torch.ldexp(torch.ones_like(largest), highest - (self._levels - 1))
        return torch.where(largest > 0, lowest, 1.0).to(weight.dtype).reshape(self.scale.shape)

    def _steps(self, units: torch.Tensor) -> torch.Tensor:
        """0 or ±2^k nearest to numbers in units of 2^n2, none beyond 127."""
        numbers = self.spec.format
        top = 2.0 ** (self._levels - 1)
        return (numbers.nearest(units / top) * top).clamp(-_LARGEST, _LARGEST)

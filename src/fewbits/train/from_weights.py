"""Weight quantizers whose codes and scale are recomputed from the float weights at every step."""

from abc import abstractmethod

import numpy as np
import torch

from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.numerics.integer_form import IntegerForm
from fewbits.quant.fake_quantize import FakeQuantize

_CODES = Int(8)


class FromWeights(FakeQuantize):
    """A weight quantizer: scale · codes, both functions of the float (shadow) weight, which is what is trained.

    A method says `codes_and_scale` and, where its paper has one, the gradient (`simulated`). What the program stores
    are the same codes as int8.
    """

    @abstractmethod
    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Whole numbers within ±127, of the weight's shape and type; and their scale, `block.scale_shape(...)`."""

    def simulated(self, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """scale · codes, with the gradient that the weight gets: by default that of the identity.

        codes; scale: broadcastable, both without gradient.
        """
        return weight + (codes * scale - weight).detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate":
            return super().forward(x)
        codes, scale = self._refreshed(x.detach())
        return self.simulated(x, codes, self.spec.block.expand(scale, x.shape))

    def _refreshed(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            codes, scale = self.codes_and_scale(weight)
            scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # a block of zeros: codes 0 at any scale
            self.scale.copy_(scale)
        return codes, scale

    @property
    def integer_form(self) -> IntegerForm | None:
        return IntegerForm(_CODES, 1.0, True)

    @property
    def integer_encoding(self) -> Encoding:
        return Encoding(_CODES, self.encoding.scale, 0, self.spec.block)

    def integers(self, real: np.ndarray) -> Quantized:
        codes, _ = self._refreshed(torch.tensor(real, device=self.scale.device))
        return Quantized(codes.cpu().numpy().astype(_CODES.dtype), self.integer_encoding)

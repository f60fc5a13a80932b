"""Quantized neural networks: weights and activations of k bits, evenly spaced from -1 to below 1.

Source: Hubara et al. 2016, arXiv:1609.07061 (QNN), §3 (LinearQuant) and §2.2 (clipped straight-through gradient).
"""

import torch

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Int
from fewbits.quant.plan import Site
from fewbits.train.binary_connect import sign
from fewbits.train.from_weights import FromWeights


class LinearWeights(FromWeights):
    """clip(rint(w · 2^(k−1)), −2^(k−1), 2^(k−1) − 1) steps of 2^(1−k); with one bit the sign, steps of 1.

    The gradient is the identity's where |w| ≤ 1 and 0 beyond; the shadow is clipped to [-1, 1] after each update.
    Raises EncodingError for more than 8 bits and for formats that are not integers or binary.
    """

    def __init__(self, site: Site):
        super().__init__(site)
        format = self.spec.format
        if not (str(format) == "binary" or (isinstance(format, Int) and format.signed and 2 <= format.bits <= 8)):
            raise EncodingError(f"tensor {site.name!r}: QNN's weights are binary or int2 to int8, not {format}")

    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bits = self.spec.format.bits
        if bits == 1:
            return sign(weight), torch.ones_like(self.scale)
        half = 2 ** (bits - 1)
        return torch.round(weight * half).clamp(max(-half, -127), half - 1), torch.full_like(self.scale, 1 / half)

    def simulated(self, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        inside = weight.clamp(-1, 1)
        return inside + (codes * scale - inside).detach()

    def after_step(self, parameter: torch.Tensor) -> None:
        """Clips the shadow to [-1, 1]."""
        with torch.no_grad():
            parameter.clamp_(-1, 1)

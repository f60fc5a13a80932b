"""The quantizer of the QAT lab: its range is the largest magnitude of the first batch, kept from then on.

Source: the lab "Quantization-aware training" (S4), exercises 1 to 3. The document's `always_pos` sets the offset to α
with a step of 2α / 2^b, so that [0, α] gets little more than half of the codes; the slide's own UINT8
has a step of α / (2^b − 1). Both are here by name. Its CustomLinear is a layer of a Simulation: off, then on, by
`set_mode`; α is fixed at the first batch that is simulated.
"""

from typing import Literal

import torch

from fewbits.errors import CalibrationError, EncodingError
from fewbits.numerics.formats import Int
from fewbits.options import options_checked
from fewbits.quant.fake_quantize import FakeQuantize, fake_quantize
from fewbits.quant.plan import Site

RangeMode = Literal["document", "efficient"]


@options_checked
def step_of(alpha: torch.Tensor, bits: int, always_positive: bool, range: RangeMode) -> torch.Tensor:
    """The step for numbers up to α: 2α / 2^b, or for positive ones in the efficient range α / (2^b − 1)."""
    if always_positive and range == "efficient":
        return alpha / (2**bits - 1)
    return 2 * alpha / 2**bits


class FirstBatchRange(FakeQuantize):
    """A signed format is the lab's signed quantizer; an unsigned one its `always_pos`, whose codes are counted from 0
    here where the lab counts from −2^(b−1): the numbers are the same. `started` and the scale are buffers, so that they
    are saved (in the lab they are plain attributes, and lost)."""

    started: torch.Tensor

    @options_checked
    def __init__(self, site: Site, range: RangeMode):
        super().__init__(site)
        if not isinstance(self.spec.format, Int):
            raise EncodingError(f"tensor {site.name!r}: the lab's quantizer has integers, not {self.spec.format}")
        self.range: RangeMode = range
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode != "simulate":
            return super().forward(x)
        format = self.spec.format
        assert isinstance(format, Int), "checked when made"
        if not self.started:
            alpha = x.detach().abs().max()
            alpha = self.processes.highest(alpha) if self.kind == "activation" else alpha
            if not (alpha > 0 and torch.isfinite(alpha)):
                raise CalibrationError(f"tensor {self.site!r}: the first batch has a largest magnitude of "
                                       f"{alpha.item()}, which gives no step: begin with other data")
            self.scale.fill_(step_of(alpha, format.bits, not format.signed, self.range))
            self.zero_point.zero_()
            self.started.fill_(True)
        return fake_quantize(x, self.scale, self.zero_point, format.low, format.high)

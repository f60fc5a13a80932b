"""The QAT lab's quantizer and layer, as plain modules.

Source: the lab "Quantization-aware training", exercises 2 and 3.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.errors import CalibrationError, EncodingError
from fewbits.options import arguments_checked
from fewbits.quant.fake_quantize import round_pass
from fewbits.train.lab_quantizer import step_of


class Quantizer(nn.Module):
    """clip(rint((x − off) / s), Q_n, Q_p) · s + off, with the straight-through gradient of the rounding.

    bits: of the codes Q_n = −2^(b−1) to Q_p = 2^(b−1) − 1. The first batch fixes α = max |x| and the step
    s = 2α / 2^b; off is 0, or α where `always_pos` (numbers that are never negative), as the lab has it. All three are
    buffers, so that `state_dict` keeps them; offset: another off. Raises EncodingError for bits outside 2 to 16,
    CalibrationError for a first batch of zeros or of what is not finite.

    >>> q = Quantizer(4)
    >>> q(torch.tensor([-4.0, 0.25, 0.75, 3.9])).tolist()
    [-4.0, 0.0, 1.0, 3.5]
    """

    alpha: torch.Tensor

    @arguments_checked
    def __init__(self, bits: int = 8, always_pos: bool = False, offset: float | None = None):
        super().__init__()
        if bits not in range(2, 17):
            raise EncodingError(f"the lab's quantizer has 2 to 16 bits, not {bits}")
        self.bits, self.always_pos = bits, always_pos
        self.offset = None if offset is None else float(offset)
        self.low, self.high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.register_buffer("alpha", torch.tensor(0.0))

    @property
    def step(self) -> torch.Tensor:
        """s."""
        return step_of(self.alpha, self.bits, self.always_pos, "document")

    @property
    def off(self) -> torch.Tensor:
        """What is taken off before and put on after."""
        if self.offset is not None:
            return torch.tensor(self.offset)
        return self.alpha if self.always_pos else torch.zeros_like(self.alpha)

    @arguments_checked
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point() or not x.numel() or x.is_meta or x.layout != torch.strided:
            raise EncodingError(f"a quantizer takes a dense tensor in float, not {x.dtype} of shape {list(x.shape)}")
        if not self.alpha:
            alpha = x.detach().abs().max()
            if not (alpha > 0 and torch.isfinite(alpha)):
                raise CalibrationError(f"the first batch has a largest magnitude of {alpha.item()}, which gives no "
                                       "step: begin with other data")
            self.alpha.copy_(alpha)
        return round_pass((x - self.off) / self.step).clamp(self.low, self.high) * self.step + self.off


class QuantLinear(nn.Linear):
    """The lab's CustomLinear: a linear layer whose weights and inputs go through quantizers once `is_quant` is set.

    Weights are signed; inputs are those of a ReLU (`always_pos`). The bias stays float, as in the lab.

    >>> layer = QuantLinear(3, 2)
    >>> x = torch.rand(4, 3)
    >>> before = layer(x)
    >>> layer.is_quant = True
    >>> bool((layer(x) - before).abs().max() < 0.05)
    True
    """

    @arguments_checked
    def __init__(self, in_features: int, out_features: int, bias: bool = True, bits: int = 8):
        if not (1 <= in_features < 2**31 and 1 <= out_features < 2**31):
            raise EncodingError(f"a layer has at least one input and one output, not {in_features} and {out_features}")
        super().__init__(in_features, out_features, bias)
        self.is_quant = False
        self.q_w, self.q_a = Quantizer(bits), Quantizer(bits, always_pos=True)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.is_quant:
            return super().forward(input)
        return F.linear(self.q_a(input), self.q_w(self.weight), self.bias)

"""Quantization simulated in float: numbers moved to the grid they will have as codes."""

from typing import Any, Literal

import torch
from torch import nn

from fewbits.errors import CalibrationError
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.rounding import half_even
from fewbits.quant.plan import Site

Mode = Literal["observe", "simulate", "off"]


class _RoundStraightThrough(torch.autograd.Function):
    """half_even with the gradient of the identity (Bengio et al. 2013, arXiv:1308.3432)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return half_even(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


def fake_quantize(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | int,
                  low: int, high: int) -> torch.Tensor:
    """scale · (clip(half_even(x / scale) + zero_point) − zero_point): docs/numerics.md, eq. 1 then 2.

    x: any shape; scale, zero_point: broadcastable. Backward: the identity inside [low, high], 0 outside.
    """
    rounded: Any = _RoundStraightThrough.apply(x / scale)
    return ((rounded + zero_point).clamp(low, high) - zero_point) * scale


class FakeQuantize(nn.Module):
    """One site. mode: `observe` passes numbers through and watches them, `simulate` moves them to the
    grid, `off` does nothing. The grid is kept in the buffers `scale` and `zero_point`; a scale of NaN
    means that none was found yet."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, site: Site):
        super().__init__()
        assert site.spec is not None, "biases and accumulators have no quantizer of their own"
        self.site, self.spec = site.name, site.spec
        self.mode: Mode = "off"
        self.observer = self.spec.observer()
        # Blocks of an activation never split the batch, so any batch size serves to count them.
        shape = self.spec.block.scale_shape([1 if size is None else size for size in site.shape])
        self.register_buffer("scale", torch.full(shape, torch.nan))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))

    @property
    def encoding(self) -> Encoding:
        """The grid as a value. Raises CalibrationError before one was found."""
        if self.scale.isnan().any():
            raise CalibrationError(f"site {self.site!r} has no encoding yet: calibrate first")
        return Encoding(self.spec.format, self.scale.detach().cpu().numpy(), self.zero_point.cpu().numpy(),
                        self.spec.block)

    @encoding.setter
    def encoding(self, encoding: Encoding) -> None:
        with torch.no_grad():
            self.scale.copy_(torch.from_numpy(encoding.scale.copy()))
            self.zero_point.copy_(torch.from_numpy(encoding.zero_point.copy()))

    def fit(self) -> None:
        """Finds the grid for what was observed. Raises CalibrationError, naming the site."""
        if not self.observer.count:
            raise CalibrationError(f"site {self.site!r} was never reached: no batch gave it a value")
        try:
            self.encoding = self.spec.fit(self.observer)
        except CalibrationError as error:
            raise CalibrationError(f"site {self.site!r}: {error}") from error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "observe":
            try:
                self.observer.update(x)
            except CalibrationError as error:
                raise CalibrationError(f"site {self.site!r}: {error}") from error
        if self.mode != "simulate":
            return x
        scale, zero_point = (self.spec.block.expand(v, x.shape) for v in (self.scale, self.zero_point))
        return fake_quantize(x, scale, zero_point, self.spec.format.low, self.spec.format.high)

    def extra_repr(self) -> str:
        return f"{self.site}: {self.spec}, {self.mode}"



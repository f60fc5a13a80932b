"""Fake quantization: quantize and dequantize in float, with a gradient."""

from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from fewbits.errors import CalibrationError, EncodingError
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Float, Format, Int, Levels
from fewbits.numerics.integer_form import UNSIGNED, IntegerForm, in_steps, integer_form, levels
from fewbits.numerics.rounding import RULES, Rounding, half_even, rule_of
from fewbits.options import check_option, shown
from fewbits.processes import ALONE
from fewbits.program import dynamic
from fewbits.quant.plan import Site
from fewbits.quant.stretched import StretchWatch

Mode = Literal["observe", "simulate", "off"]


class _RoundStraightThrough(torch.autograd.Function):
    """A rounding with the gradient of the identity (Bengio et al. 2013, arXiv:1308.3432)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rounding: Rounding) -> torch.Tensor:
        return rounding(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def round_pass(x: torch.Tensor, rounding: Rounding | str = half_even) -> torch.Tensor:
    """`rounding` of x, a rule or the name of one (`half_even`, `half_away`, `floor`, …), whose gradient is that of x.

    Raises EncodingError for x that is no tensor in float, and a rule that is none.
    Source: Bengio et al. 2013, arXiv:1308.3432, §2.
    """
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise EncodingError(f"{shown(x)} is no tensor in float, which alone rounds with a gradient: give one")
    if isinstance(rounding, str):
        rounding = rule_of(rounding)
    elif not callable(rounding):
        raise EncodingError(f"{shown(rounding)} is no rounding: give a rule, or the name of one")
    rounded: Any = _RoundStraightThrough.apply(x, rounding)
    return rounded


def within(gradient: torch.Tensor, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The gradient where low < x < high, 0 elsewhere: in one pass, which takes a sixth of what a mask costs."""
    return torch.ops.aten.hardtanh_backward(gradient, x, low, high)


class _FakeQuantize(torch.autograd.Function):
    """`fake_quantize` for a scale that does not learn, in half the time of the steps one by one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | int, low: int, high: int,
                rounding: Rounding) -> torch.Tensor:
        steps = x / scale  # from here on in place: what takes the time is memory, three times less of it this way
        steps = steps.round_() if rounding is half_even else rounding(steps)
        if isinstance(zero_point, torch.Tensor) or zero_point:
            steps = steps.add_(zero_point)
        if not x.requires_grad:
            return steps.clamp_(low, high).sub_(zero_point).mul_(scale)
        ctx.save_for_backward(steps)
        ctx.bounds = low - 0.5, high + 0.5
        return steps.clamp(low, high).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None, None]:
        return within(gradients[0], ctx.saved_tensors[0], *ctx.bounds), None, None, None, None, None


def fake_quantize(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | int,
                  low: int, high: int, rounding: Rounding = half_even) -> torch.Tensor:
    """scale · (clip(rounding(x / scale) + zero_point) − zero_point): docs/numerics.md, eq. 1 then 2.

    x: any shape; scale, zero_point: broadcastable. Backward: the identity inside [low, high], 0 outside.
    """
    if not scale.requires_grad:
        moved: Any = _FakeQuantize.apply(x, scale, zero_point, low, high, rounding)
        return moved
    return ((round_pass(x / scale, rounding) + zero_point).clamp(low, high) - zero_point) * scale


def fake_quantize_by_own_range(x: torch.Tensor) -> torch.Tensor:
    """Dynamic quantization of a tensor by its own range: docs/numerics.md, eq. 28, then 1 and 2. Backward: identity."""
    grid = dynamic.grid_of(x.detach().cpu().numpy())
    if not grid.scale:
        return x * 0.0
    scale = torch.tensor(grid.scale, device=x.device)
    return fake_quantize(x, scale, grid.zero_point, dynamic.CODES.low, dynamic.CODES.high)


class _NearestStraightThrough(torch.autograd.Function):
    """The nearest number of a Float or Table, with the gradient of the identity inside its range, 0 outside."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, format: Float | Levels, rounding: Rounding) -> torch.Tensor:
        lowest = -format.largest if format.signed else 0.0
        ctx.save_for_backward((x >= lowest) & (x <= format.largest))
        return format.nearest(x, rounding)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None


def fake_nearest(x: torch.Tensor, scale: torch.Tensor, format: Float | Levels,
                 rounding: Rounding = half_even) -> torch.Tensor:
    """scale · nearest(x / scale): the numbers of a Float or a Table, which have no zero point.

    x: any shape; scale: broadcastable. Backward: the identity in the range of the format, 0 outside.
    """
    nearest: Any = _NearestStraightThrough.apply(x / scale, format, rounding)
    return nearest * scale


def on_steps(units: torch.Tensor, form: IntegerForm) -> torch.Tensor:
    """Numbers of a Float or Table, in units of its scale, as steps of its integers (integer_form.py, `in_steps`), with
    the gradient of the division."""
    return round_pass(units.double() / form.step).to(units.dtype)


class FakeQuantize(nn.Module):
    """One tensor. mode: `observe` passes numbers through and watches them, `simulate` quantizes
    and dequantizes them, `off` does nothing. The encoding is kept in the buffers `scale` and `zero_point`; a scale of
    NaN means that there is none yet."""

    scale: torch.Tensor
    zero_point: torch.Tensor
    decays = True
    """Whether weight decay works on what is learned of the range, as on weights."""

    def __init__(self, site: Site):
        super().__init__()
        assert site.spec is not None, "biases and accumulators have no quantizer of their own"
        self.site, self.kind, self.spec = site.name, site.kind, site.spec
        self._mode: Mode = "off"
        self.observer = self.spec.observer()
        self.processes = ALONE
        """Those that train together: what is learned from a batch is learned from the whole of it."""
        self.stretch = StretchWatch(site.name)
        # Blocks of an activation never split the batch, so any batch size serves to count them.
        shape = self.spec.block.scale_shape([1 if size is None else size for size in site.shape])
        self.register_buffer("scale", torch.full(shape, torch.nan))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))

    @property
    def mode(self) -> Mode:
        """`observe`, `simulate` or `off`. Raises OptionError when it is set to anything else."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        check_option("mode", mode, Mode)
        self._mode = mode

    @property
    def format(self) -> Format:
        """The format of this tensor's numbers: its spec's, unless it is learned."""
        return self.spec.format

    @property
    def integer_form(self) -> IntegerForm | None:
        """How integer sums take this tensor's numbers; None when they cannot."""
        return integer_form(self.format, self.spec.integers)

    @property
    def integer_scale(self) -> torch.Tensor:
        """Scale of the integers that stand for this tensor's numbers, of the shape of `scale`.

        Raises CalibrationError when its format has no integer form.
        """
        form = self.integer_form
        if form is None:
            raise CalibrationError(f"tensor {self.site!r} has {self.format}, which is no integers: "
                                   "add `integers: int8` to its spec to round it to some")
        self.settle()
        return self.scale * form.step

    @property
    def integer_encoding(self) -> Encoding:
        """The encoding of those integers. Raises CalibrationError as `integer_scale` does."""
        form, scale = self.integer_form, self.integer_scale
        if form is None or isinstance(self.format, Int):
            return self.encoding
        scale = scale.detach().cpu().numpy()
        if self.kind == "weight":
            return Encoding(form.integers, scale, 0, self.spec.block)
        return Encoding(UNSIGNED, scale, -min(int(levels(self.format, form)[0]), 0), self.spec.block)

    def integers(self, real: np.ndarray) -> Quantized:
        """The integers that stand for `real`, as lowering stores them. Raises CalibrationError as above."""
        encoding, form = self.integer_encoding, self.integer_form
        if form is None or isinstance(self.format, Int):
            return encoding.encode(real, self.rounding)
        units = real / self.spec.block.expand(self.encoding.scale, real.shape)
        steps = in_steps(self.format, form, units, self.rounding)
        return Quantized((steps + int(encoding.zero_point.max(initial=0))).astype(encoding.format.dtype), encoding)

    @property
    def rounding(self) -> Rounding:
        """How numbers are rounded to the format."""
        return RULES[self.spec.rounding]

    @property
    def encoding(self) -> Encoding:
        """The encoding as a value. Raises CalibrationError before there is one."""
        self.settle()
        if self.scale.isnan().any():
            raise CalibrationError(f"tensor {self.site!r} has no encoding yet: calibrate first")
        return Encoding(self.format, self.scale.detach().cpu().numpy(), self.zero_point.cpu().numpy(),
                        self.spec.block)

    @encoding.setter
    def encoding(self, encoding: Encoding) -> None:
        with torch.no_grad():
            self.scale.copy_(torch.from_numpy(encoding.scale.copy()))
            self.zero_point.copy_(torch.from_numpy(encoding.zero_point.copy()))

    def fit(self) -> None:
        """Finds the encoding for what was observed. Raises CalibrationError, naming the tensor."""
        if not self.observer.count:
            raise CalibrationError(f"tensor {self.site!r} was never reached: no batch gave it a value")
        try:
            self.encoding = self.spec.fit(self.observer)
        except CalibrationError as error:
            raise CalibrationError(f"tensor {self.site!r}: {error}") from error

    def adopt(self, calibrated: "FakeQuantize") -> None:
        """Takes over encoding and mode of the quantizer that it replaces."""
        with torch.no_grad():
            self.scale.copy_(calibrated.scale)
            self.zero_point.copy_(calibrated.zero_point)
        self.mode = calibrated.mode

    def settle(self) -> None:
        """Makes `scale` and `zero_point` those of what was learned last, for methods that learn something else, or
        whose last step led out of bounds."""

    @property
    def collapsed(self) -> bool:
        """Whether the last update has brought what is learned of the range to 0 or below."""
        return False

    def progress(self, done: float, parameter: torch.Tensor) -> None:
        """Called before each training step with the share of the steps that is done: for methods in stages."""

    def after_step(self, parameter: torch.Tensor) -> None:
        """Called after each update of the parameter at this tensor, which some methods keep within bounds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "observe":
            try:
                self.observer.update(x)
                if self.kind == "activation":
                    self.stretch.see(x)
            except CalibrationError as error:
                raise CalibrationError(f"tensor {self.site!r}: {error}") from error
        if self.mode != "simulate":
            return x
        scale, zero_point = (self.spec.block.expand(v, x.shape) for v in (self.scale, self.zero_point))
        if not isinstance(self.format, Int):
            form = self.integer_form
            if form is None:
                return fake_nearest(x, scale, self.format, self.rounding)
            units = fake_nearest(x / scale, torch.ones((), device=x.device), self.format, self.rounding)
            return on_steps(units, form) * (scale * form.step)
        return fake_quantize(x, scale, zero_point, self.format.low, self.format.high, self.rounding)

    def extra_repr(self) -> str:
        return f"{self.site}: {self.spec}, {self.mode}"



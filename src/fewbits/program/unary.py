"""Functions of one number (elementwise operators of one operand): one row each, and all there is to say of it.

Whoever needs to know a function reads its row: the operator table (graph/operators.py), the calls of float islands
(program/float_calls.py), the ONNX of an island and of the float network (export/), the random networks and the tests.
As integers each is a table over the codes of its operand (docs/numerics.md, eq. 12).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log
from types import MappingProxyType
from typing import Any, Literal

import torch

from fewbits.program.functions import bounded, two_pieces

aten = torch.ops.aten

X: Literal["x"] = "x"
"""The function's number, as an operand of a form."""


@dataclass(frozen=True)
class Onnx:
    """An ONNX operator applied to the function's number, to constants, and to what other operators give."""

    operator: str
    operands: "tuple[UnaryForm, ...]" = (X,)
    attributes: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


UnaryForm = Onnx | float | Literal["x"]


EVERYWHERE = (-4.0, 4.0)
"""The domain of a function of any number."""


@dataclass(frozen=True)
class FloatKernel:
    """How ONNX Runtime computes a function in float32, of those which it computes faster than it looks up a code.

    absolute, relative: its error for x is at most absolute + relative · |x|, about twice what was measured with
    AVX-512, AVX2 and SSE4.1 (tests/writers/test_float_functions.py); slope: the steepest of the function; on_codes: an
    operator of ONNX Runtime's own that reads and writes codes; fused: one that is the whole function; slope_below: the
    argument that is the slope below 0, which tables do not keep.
    """

    absolute: float
    relative: float
    slope: float
    on_codes: str = ""
    fused: Onnx | None = None
    slope_below: str = ""


@dataclass(frozen=True)
class Unary:
    """A row.

    call: an ATen overload, or a function of ours, that takes the numbers first; form: the ONNX operators (opset 19)
    that it is, from its other arguments by name; examples: other arguments that tests try, those left out having
    ATen's defaults; domain: where it is defined, of the numbers that tests and random networks give it; kernel: None
    where a look-up is as fast.
    """

    call: Callable[..., Any]
    form: Callable[[Mapping[str, Any]], UnaryForm]
    examples: tuple[Mapping[str, Any], ...] = ({},)
    domain: tuple[float, float] = EVERYWHERE
    kernel: FloatKernel | None = None

    @property
    def word(self) -> str:
        """`leaky_relu` of `aten.leaky_relu.default`."""
        return str(getattr(self.call, "__name__", self.call)).split(".")[0]

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The other arguments by name, ATen's defaults where none is given. Raises KeyError where one has neither."""
        schema = getattr(self.call, "_schema", None)
        if schema is None:
            return dict(given)
        return {argument.name: given[argument.name] if argument.name in given or not argument.has_default_value()
                else argument.default_value for argument in schema.arguments[1:]}


def _is(operator: str, **attributes: str | float) -> Callable[[Mapping[str, Any]], UnaryForm]:
    """One ONNX operator. attributes: a number, or the name of the argument that it is."""
    def form(given: Mapping[str, Any]) -> UnaryForm:
        return Onnx(operator, attributes={name: given[value] if isinstance(value, str) else value
                                          for name, value in attributes.items()})

    return form


def _applied(operator: str, *operands: UnaryForm) -> Onnx:
    return Onnx(operator, operands)


def _elu(given: Mapping[str, Any]) -> UnaryForm:
    if given["scale"] == given["input_scale"] == 1:
        return Onnx("Elu", attributes={"alpha": given["alpha"]})
    below = _applied("Sub", _applied("Exp", _applied("Mul", _applied("Min", X, 0.0), given["input_scale"])), 1.0)
    return _applied("Add", _applied("Mul", _applied("Relu", X), given["scale"]),
                    _applied("Mul", below, given["alpha"] * given["scale"]))


def _gelu(given: Mapping[str, Any]) -> UnaryForm:
    """x/2 · (1 + erf(x/√2)), or with tanh(√(2/π) · (x + 0.044715 x³)) in erf's place (Hendrycks and Gimpel 2016)."""
    if given["approximate"] == "tanh":
        cube = _applied("Mul", _applied("Mul", _applied("Mul", X, X), X), 0.044715)
        gate = _applied("Tanh", _applied("Mul", _applied("Add", X, cube), (2 / torch.pi) ** 0.5))
    else:
        gate = _applied("Erf", _applied("Mul", X, 0.5**0.5))
    return _applied("Mul", _applied("Mul", X, 0.5), _applied("Add", gate, 1.0))


def _softplus(given: Mapping[str, Any]) -> UnaryForm:
    """log(1 + exp(βx))/β; where βx is above ATen's threshold of 20, whose x is nearer than float32 tells."""
    beta = given["beta"]
    return Onnx("Softplus") if beta == 1 else _applied("Div", _applied("Softplus", _applied("Mul", X, beta)), beta)


def _difference(given: Mapping[str, Any]) -> UnaryForm:
    return _applied("Sub", given["other"], X if given["alpha"] == 1 else _applied("Mul", X, given["alpha"]))


def _filled(value: str | float) -> Callable[[Mapping[str, Any]], UnaryForm]:
    """One number everywhere: an argument's name, or the number."""
    return lambda given: _applied("Expand", given[value] if isinstance(value, str) else value, Onnx("Shape"))


_RELATIONS = {"gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "eq": "Equal", "ne": "Equal"}


def _two_pieces(given: Mapping[str, Any]) -> UnaryForm:
    def line(slope: float, offset: float) -> UnaryForm:
        return _applied("Add", _applied("Mul", X, slope), offset) if slope else offset

    one = line(given["slope"], given["offset"])
    other = line(given["other_slope"], given["other_offset"])
    holds = _applied(_RELATIONS[given["relation"]], X, given["bound"])
    return _applied("Where", holds, *((other, one) if given["relation"] == "ne" else (one, other)))


def _truncated() -> Onnx:
    """Towards 0."""
    return _applied("Mul", Onnx("Sign"), _applied("Floor", Onnx("Abs")))


UNARY: tuple[Unary, ...] = (
    Unary(aten.sigmoid.default, _is("Sigmoid"), kernel=FloatKernel(2.0**-21, 0.0, 0.25, on_codes="QLinearSigmoid")),
    Unary(aten.tanh.default, _is("Tanh"), kernel=FloatKernel(0.0, 2.0**-20, 1.0)),
    Unary(aten.hardswish.default, _is("HardSwish"), kernel=FloatKernel(0.0, 2.0**-22, 1.5)),
    Unary(aten.hardsigmoid.default, _is("HardSigmoid", alpha=1 / 6, beta=0.5),
          kernel=FloatKernel(2.0**-23, 0.0, 0.17)),
    Unary(aten.silu.default, lambda given: _applied("Mul", X, Onnx("Sigmoid")),
          kernel=FloatKernel(0.0, 2.0**-21, 1.1, fused=Onnx("QuickGelu", attributes={"alpha": 1.0}))),
    Unary(aten.gelu.default, _gelu, ({}, {"approximate": "tanh"})),
    Unary(aten.elu.default, _elu, ({}, {"alpha": 0.7}, {"alpha": 0.7, "scale": 1.5, "input_scale": 0.5})),
    Unary(aten.leaky_relu.default, _is("LeakyRelu", alpha="negative_slope"), ({}, {"negative_slope": 0.2}),
          kernel=FloatKernel(0.0, 2.0**-23, 1.0, on_codes="QLinearLeakyRelu", slope_below="negative_slope")),
    Unary(aten.exp.default, _is("Exp")),
    Unary(aten.neg.default, _is("Neg")),
    Unary(aten.softplus.default, _softplus, ({}, {"beta": 2.0})),
    Unary(aten.mish.default, _is("Mish")),
    Unary(aten.sqrt.default, _is("Sqrt"), domain=(0.0, 4.0)),
    Unary(aten.rsqrt.default, lambda given: _applied("Reciprocal", Onnx("Sqrt")), domain=(0.1, 4.0)),
    Unary(aten.abs.default, _is("Abs")),
    Unary(aten.pow.Tensor_Scalar, lambda given: _applied("Pow", X, given["exponent"]),
          ({"exponent": 2}, {"exponent": 3.0})),
    Unary(aten.erf.default, _is("Erf")),
    Unary(aten.reciprocal.default, _is("Reciprocal"), domain=(0.1, 4.0)),
    Unary(aten.square.default, lambda given: _applied("Mul", X, X)),
    Unary(aten.log_sigmoid.default, lambda given: _applied("Neg", _applied("Softplus", Onnx("Neg")))),
    Unary(aten.rsub.Scalar, _difference, ({"other": 1.0}, {"other": 0.3, "alpha": 2.0})),
    Unary(aten.sign.default, _is("Sign")),
    Unary(aten.selu.default, _is("Selu")),
    Unary(aten.celu.default, _is("Celu", alpha="alpha"), ({}, {"alpha": 0.7})),
    Unary(aten.zeros_like.default, _filled(0.0)),
    Unary(aten.ones_like.default, _filled(1.0)),
    Unary(aten.full_like.default, _filled("fill_value"), ({"fill_value": 0.5},)),
    Unary(two_pieces, _two_pieces, (
        {"relation": "ge", "bound": 0.25, "slope": 0.0, "offset": 1.0, "other_slope": 0.0, "other_offset": -1.0},
        {"relation": "ne", "bound": 0.0, "slope": 2.0, "offset": 0.0, "other_slope": 0.5, "other_offset": 0.0})),
    Unary(bounded, lambda given: _applied("Clip", X, given["low"], given["high"]), ({"low": 0.5, "high": 2.0},)),
    Unary(aten.sin.default, _is("Sin")),
    Unary(aten.cos.default, _is("Cos")),
    Unary(aten.tan.default, _is("Tan"), domain=(-1.2, 1.2)),
    Unary(aten.asin.default, _is("Asin"), domain=(-0.95, 0.95)),
    Unary(aten.acos.default, _is("Acos"), domain=(-0.95, 0.95)),
    Unary(aten.atan.default, _is("Atan")),
    Unary(aten.sinh.default, _is("Sinh")),
    Unary(aten.cosh.default, _is("Cosh")),
    Unary(aten.asinh.default, _is("Asinh")),
    Unary(aten.acosh.default, _is("Acosh"), domain=(1.1, 4.0)),
    Unary(aten.atanh.default, _is("Atanh"), domain=(-0.95, 0.95)),
    Unary(aten.log.default, _is("Log"), domain=(0.1, 4.0)),
    Unary(aten.log2.default, lambda given: _applied("Mul", Onnx("Log"), 1 / log(2)), domain=(0.1, 4.0)),
    Unary(aten.log10.default, lambda given: _applied("Mul", Onnx("Log"), 1 / log(10)), domain=(0.1, 4.0)),
    Unary(aten.log1p.default, lambda given: _applied("Log", _applied("Add", X, 1.0)), domain=(0.0, 4.0)),
    Unary(aten.expm1.default, lambda given: _applied("Sub", Onnx("Exp"), 1.0)),
    Unary(aten.exp2.default, lambda given: _applied("Pow", 2.0, X)),
    Unary(aten.floor.default, _is("Floor")),
    Unary(aten.ceil.default, _is("Ceil")),
    Unary(aten.round.default, _is("Round")),
    Unary(aten.trunc.default, lambda given: _truncated()),
    Unary(aten.frac.default, lambda given: _applied("Sub", X, _truncated())),
    Unary(aten.erfc.default, lambda given: _applied("Sub", 1.0, Onnx("Erf"))),
    Unary(aten.softshrink.default, _is("Shrink", lambd="lambd", bias="lambd"), ({}, {"lambd": 0.1})),
    Unary(aten.hardshrink.default, _is("Shrink", lambd="lambd", bias=0.0), ({}, {"lambd": 0.7})),
)

BY_WORD: Mapping[str, Unary] = MappingProxyType({row.word: row for row in UNARY})

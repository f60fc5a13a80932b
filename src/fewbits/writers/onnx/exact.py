"""Calls on integers and truth values as ONNX: the operators of the same names, on operands of one type."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from fewbits.program.exact_calls import DTYPES, apart, common_type
from fewbits.program.ops import ExactCall, ExactConstant, Read
from fewbits.writers.onnx.builder import OnnxBuilder
from fewbits.writers.onnx.steps import FormTable, OnnxForms

ELEMENTS: Mapping[str, int] = {
    "float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32, "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8, "bool": TensorProto.BOOL}


def _constant(b: OnnxBuilder, node: ExactConstant) -> None:
    data = node.data.astype(DTYPES[b.program.values[node.name].dtype])
    b.node("Identity", [b.constant(f"{node.name}.data", data)], node.name)


def _call(b: OnnxBuilder, node: ExactCall) -> None:
    """Operands brought to their common type, the operator, and its result brought to the node's."""
    call = _Call(b, node)
    word = node.call.removeprefix("aten.").split(".")[0]
    result = _CALLS[word](call)
    b.node("Cast", [result], node.name, to=ELEMENTS[b.program.values[node.name].dtype])


class _Call:
    """A call under way: its operands as ONNX names, in one type."""

    def __init__(self, b: OnnxBuilder, node: ExactCall):
        self.b, self.node = b, node
        untouched = apart(node.call)
        self.type = common_type({name: self._shown(value) for name, value in node.arguments.items()
                                 if name not in untouched})
        self._untouched = untouched

    def _shown(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return [self._shown(item) for item in value]
        return np.empty(0, DTYPES[self.b.program.values[value.value].dtype]) if isinstance(value, Read) else value

    def step(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        return self.b.node(operator, inputs, self.b.name(self.node.name, operator.lower()), **attributes)

    def operand(self, name: str) -> str:
        return self._named(name, self.node[name])

    def operands(self, name: str) -> list[str]:
        items = self.node[name]
        assert isinstance(items, tuple), "a list of values"
        return [self._named(f"{name}{place}", item) for place, item in enumerate(items)]

    def _named(self, name: str, value: Any) -> str:
        if isinstance(value, Read):
            dtype = DTYPES[self.b.program.values[value.value].dtype]
            if name in self._untouched or dtype == self.type:
                return value.value
            return self.step("Cast", [value.value], to=ELEMENTS[self.type.name])
        return self.number(name, value)

    def number(self, name: str, value: Any) -> str:
        return self.b.constant(f"{self.node.name}.{name}.number", np.array(value, self.type))

    def axes(self) -> list[int]:
        dim = self.node["dim"]
        return [axis for axis in (dim if isinstance(dim, tuple) else (dim,)) if isinstance(axis, int)]


def _pair(operator: str, first: str = "self", second: str = "other") -> Callable[[_Call], str]:
    def emit(call: _Call) -> str:
        names = [call.operand(first), call.operand(second)]
        alpha = call.node.arguments.get("alpha", 1)
        if alpha != 1:  # of the second, which is added or taken away
            names[1] = call.step("Mul", [names[1], call.number("alpha", alpha)])
        return call.step(operator, names)

    return emit


def _one(operator: str) -> Callable[[_Call], str]:
    return lambda call: call.step(operator, [call.operand("self")])


def _unequal(call: _Call) -> str:
    return call.step("Not", [call.step("Equal", [call.operand("self"), call.operand("other")])])


def _truth(call: _Call, name: str) -> str:
    value = call.node[name]
    given = call.operand(name)
    if isinstance(value, Read) and call.b.program.values[value.value].dtype == "bool":
        return value.value
    return call.step("Cast", [given], to=TensorProto.BOOL)


def _logical(operator: str) -> Callable[[_Call], str]:
    return lambda call: call.step(operator, [_truth(call, "self"), _truth(call, "other")])


def _not(call: _Call) -> str:
    return call.step("Not", [_truth(call, "self")])


def _where(call: _Call) -> str:
    return call.step("Where", [call.operand("condition"), call.operand("self"), call.operand("other")])


def _filled(call: _Call) -> str:
    return call.step("Where", [call.operand("mask"), call.operand("value"), call.operand("self")])


def _clip(call: _Call) -> str:
    x = call.operand("self")
    for operator, bound in (("Max", "min"), ("Min", "max")):
        if call.node.arguments.get(bound) is not None:
            x = call.step(operator, [x, call.operand(bound)])
    return x


def _quotient(call: _Call) -> str:
    names = [call.step("Cast", [call.operand(name)], to=TensorProto.FLOAT) for name in ("self", "other")]
    return call.step("Div", names)


def _floor(call: _Call) -> str:
    """(x - x mod y) / y, which no rounding touches."""
    x, y = call.operand("self"), call.operand("other")
    return call.step("Div", [call.step("Sub", [x, call.step("Mod", [x, y])]), y])


def _cumulative(call: _Call) -> str:
    x = call.step("Cast", [call.operand("self")], to=TensorProto.INT64)
    axis = call.b.constant(f"{call.node.name}.axis.number", np.array(call.axes()[0], np.int64))
    return call.step("CumSum", [x, axis])


def _reduced(operator: str, element: int) -> Callable[[_Call], str]:
    def emit(call: _Call) -> str:
        x = call.step("Cast", [call.operand("self")], to=element)
        axes = call.b.constant(f"{call.node.name}.axes.number", np.array(call.axes(), np.int64))
        return call.step(operator, [x, axes], keepdims=int(bool(call.node.arguments.get("keepdim", False))))

    return emit


def _largest_at(call: _Call) -> str:
    x = call.step("Cast", [call.operand("self")], to=TensorProto.INT32)
    return call.step("ArgMax", [x], axis=call.axes()[0], keepdims=int(bool(call.node["keepdim"])))


def _joined(call: _Call) -> str:
    return call.step("Concat", call.operands("tensors"), axis=call.axes()[0])


def _looked_up(call: _Call) -> str:
    return call.step("Gather", [call.operand("table"), call.operand("numbers")], axis=0)


def _same(call: _Call) -> str:
    return call.operand("self")


_CALLS: Mapping[str, Callable[[_Call], str]] = {
    "add": _pair("Add"), "sub": _pair("Sub"), "rsub": _pair("Sub", "other", "self"), "mul": _pair("Mul"),
    "div": _quotient, "neg": _one("Neg"), "abs": _one("Abs"), "minimum": _pair("Min"), "maximum": _pair("Max"),
    "clamp": _clip, "clamp_min": _clip, "clamp_max": _clip, "floor_divide": _floor, "remainder": _pair("Mod"),
    "eq": _pair("Equal"), "ne": _unequal, "lt": _pair("Less"), "le": _pair("LessOrEqual"), "gt": _pair("Greater"),
    "ge": _pair("GreaterOrEqual"), "logical_and": _logical("And"), "logical_or": _logical("Or"),
    "logical_xor": _logical("Xor"), "logical_not": _not, "bitwise_and": _pair("BitwiseAnd"),
    "bitwise_or": _pair("BitwiseOr"), "where": _where, "masked_fill": _filled, "to": _same, "cumsum": _cumulative,
    "sum": _reduced("ReduceSum", TensorProto.INT64), "any": _reduced("ReduceMax", TensorProto.INT32),
    "all": _reduced("ReduceMin", TensorProto.INT32), "amax": _reduced("ReduceMax", TensorProto.INT64),
    "amin": _reduced("ReduceMin", TensorProto.INT64), "argmax": _largest_at, "cat": _joined, "lookup": _looked_up,
}
"""By the call's name without its overload."""

FORMS: FormTable = {
    ExactConstant: OnnxForms(_constant, _constant, _constant),
    ExactCall: OnnxForms(_call, _call, _call),
}

"""What the recipe leaves in float: its calls, what they read, and the way in and out of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fewbits.errors import LoweringError
from fewbits.graph.graph import Node, Param, Ref
from fewbits.graph.operators import TRAINING_ARGUMENT
from fewbits.lower.context import Context
from fewbits.lower.inputs import quantized
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.program import ops as op
from fewbits.program.float_calls import FLOAT_CALLS, call_name
from fewbits.program.ops import Argument, Read

_BIT = Encoding(Int(1, signed=False), 1.0)
"""A mask's: 0 and 1."""


def float_call(context: Context, node: Node) -> None:
    """The node's own call in float32, and a quantizer behind it where its result is quantized."""
    assert node.shape is not None, "operators that make numbers return one tensor"
    if node.op == "enter":  # nothing quantizes what it enters
        context.names[node.name] = context.names[node["x"].name]
        return
    if call_name(node.target) not in FLOAT_CALLS:
        raise LoweringError(f"{node.name!r} is left in float, and {call_name(node.target)} is no float call of a "
                            "program: give its weights and activations a format")
    arguments = {name: _argument(context, node, name, value) for name, value in node.arguments.items()}
    site = context.simulation.plan.sites.get(node.name)
    if node.op in TRAINING_ARGUMENT:
        arguments[TRAINING_ARGUMENT[node.op]] = False
    name = node.name if site is None else f"{node.name}.unrounded"
    context.names[node.name] = context.emit(op.FloatCall(name, call_name(node.target), arguments), node.shape, None)
    if site is not None:
        context.names[node.name] = quantized(context, node.name, name, node.name, node.shape)


def _argument(context: Context, node: Node, argument: str, value: Any) -> Argument:
    if isinstance(value, list | tuple):
        items = tuple(_argument(context, node, argument, item) for item in value)
        if not any(isinstance(item, tuple) for item in items):
            return items  # type: ignore[return-value]  # no tuples among them
    elif isinstance(value, Ref):
        if value.name in context.names:
            return Read(real(context, value))
    elif isinstance(value, Param):
        return Read(_parameter(context, node, argument, value.name))
    elif value is None or isinstance(value, bool | int | float | str):
        return value
    elif value is torch.float32:  # what it computes in anyway
        return None
    raise LoweringError(f"{node.name!r} is left in float, and its argument {argument!r} is {value}: "
                        "a program keeps numbers, texts and tensors only")


def real(context: Context, value: Ref) -> str:
    """The float32 value of a value of the graph."""
    return _decoded(context, context.names[value.name])


def _decoded(context: Context, name: str) -> str:
    """The float32 value of what may be codes."""
    value = context.values[name]
    if value.encoding is None:
        return name
    decoded = f"{name}.decoded"
    return decoded if decoded in context.values else context.emit(op.Dequantize(decoded, name), value.shape, None)


def _parameter(context: Context, node: Node, argument: str, name: str) -> str:
    """A parameter as a float32 value: decoded from the codes it is stored in, a mask from its bits, or as it is."""
    if argument in context.simulation.plan.steps[node.name].coded and name in context.simulation.plan.sites:
        return _stored(context, name, lambda: _codes(context, name))
    array = context.array(name)
    if array.dtype == np.bool_:
        return _stored(context, name, lambda: Quantized(array.astype(np.uint8), _BIT))
    return constant(context, name, argument, node)


def constant(context: Context, name: str, argument: str, node: Node) -> str:
    """A parameter as the float32 it is."""
    array = context.array(name)
    if array.dtype != np.float32:
        raise LoweringError(f"{node.name!r} is left in float, and its {argument} is {array.dtype}: make it float32")
    plain = f"{name}.plain" if name in context.simulation.plan.sites else name
    if plain not in context.values:
        context.emit(op.FloatConstant(plain, array), array.shape, None)
    return plain


def _stored(context: Context, name: str, data: Callable[[], Quantized]) -> str:
    if name not in context.values:
        made = data()
        context.emit(op.Constant(name, made), made.codes.shape, made.encoding)
    return _decoded(context, name)


def _codes(context: Context, name: str) -> Quantized:
    """As the simulation reads it: the integers that its numbers are taken as, where there are some; in the format's own
    codes where these are the same numbers."""
    quantizer, array = context.simulation.quantizer(name), context.array(name)
    if not np.isfinite(array).all():
        raise LoweringError(f"weight {name!r} holds NaN or Inf")
    if quantizer.integer_form is None:
        return quantizer.encoding.encode(array, quantizer.rounding)
    data = quantizer.integers(array)
    if isinstance(quantizer.format, Int):
        return data
    own = quantizer.encoding.encode(array, quantizer.rounding)
    return own if np.array_equal(own.dequantize(), data.dequantize()) else _narrowed(data)


def _narrowed(data: Quantized) -> Quantized:
    """The same numbers in the fewest bits that hold their codes."""
    codes, encoding = data.codes.astype(np.int64), data.encoding
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    format = Int(max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1)
    return Quantized(codes.astype(format.dtype), Encoding(format, encoding.scale, encoding.zero_point, encoding.block))

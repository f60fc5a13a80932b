"""Token numbers, positions and masks: their calls, and the constants these read."""

from typing import Any

import numpy as np

from fewbits.errors import LoweringError
from fewbits.graph.graph import Node, Param, Ref
from fewbits.lower.context import Context, Rules
from fewbits.lower.inputs import quantized
from fewbits.lower.islands import real
from fewbits.program import ops as op
from fewbits.program.exact_calls import DTYPES
from fewbits.program.float_calls import Argument, Read, call_name
from fewbits.program.value import Dtype


def dtype_of(name: str) -> Dtype:
    """The type of a value of a program, by torch's name. The plan refused others."""
    assert name in DTYPES, "the plan refused other types"
    return name  # type: ignore[return-value]


def exact_call(context: Context, node: Node) -> None:
    """The node's own call on integers, truth values, and floats as they are."""
    assert node.shape is not None, "calls on tokens return one tensor"
    arguments = {name: _argument(context, node, name, value) for name, value in node.arguments.items()
                 if name not in ("dtype", "non_blocking", "copy", "memory_format")}
    made = op.ExactCall(node.name, call_name(node.target), arguments)
    context.names[node.name] = context.emit(made, node.shape, None, dtype_of(node.dtype))


def _argument(context: Context, node: Node, argument: str, value: Any) -> Argument:
    if isinstance(value, list | tuple):
        return tuple(_argument(context, node, argument, item) for item in value)  # type: ignore[misc]
    if isinstance(value, Ref):
        return Read(real(context, value))
    if isinstance(value, Param):
        return Read(plain(context, value.name))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise LoweringError(f"{node.name!r} computes with its argument {argument!r}, {value}: a program keeps numbers, "
                        "texts and tensors only")


def plain(context: Context, name: str) -> str:
    """A parameter or buffer as the numbers it holds."""
    array = context.array(name)
    if array.dtype == np.float32:
        kept = f"{name}.plain" if name in context.simulation.plan.sites else name
        return kept if kept in context.values else context.emit(op.FloatConstant(kept, array), array.shape, None)
    if array.dtype == np.float64 or array.dtype.name not in DTYPES:
        raise LoweringError(f"{name!r} is {array.dtype}, and a program holds {', '.join(DTYPES)}")
    kept = f"{name}.{array.dtype}"
    return kept if kept in context.values else context.emit(op.ExactConstant(kept, array), array.shape, None,
                                                            dtype_of(array.dtype.name))


def mask(context: Context, value: Any) -> str:
    """Truth values that softmax or a choice reads."""
    return plain(context, value.name) if isinstance(value, Param) else context.names[value.name]


def entered(context: Context, node: Node) -> None:
    """Numbers carried as they are, brought to the grid of what reads them."""
    source = context.names[node["x"].name]
    assert node.shape is not None, "it is one tensor"
    context.names[node.name] = quantized(context, node.name, source, node.name, node.shape)


RULES: Rules = {
    "enter": entered,
}

"""The operator table: which ATen calls we know, what each is called, and the part it plays.

One row an operator. `role` decides where quantizers stand (quant/planner.py); `refuse` says, in words, which
uses of a known operator have no integer form.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from fewbits.graph.functions import (
    adaptive_max_pool,
    entered,
    insert_zeros,
    join,
    masked_softmax,
    quotient,
    recurrence,
    state,
    step,
)
from fewbits.graph.graph import Node, Operator, Param, Ref, Shape, Shapes
from fewbits.program.exact_calls import EXACT_CALLS
from fewbits.program.float_calls import call_name
from fewbits.program.requantize import SOFTMAX_LENGTH
from fewbits.program.unary import UNARY

aten = torch.ops.aten


def _shape(shapes: Shapes, argument: Any) -> Shape:
    """Shape of a value or parameter; () for a number."""
    return (shapes.get(argument.name) or ()) if isinstance(argument, Ref | Param) else ()


def _batch_axis(node: Node, shapes: Shapes, argument: str = "self", axis: str = "dim") -> bool:
    """Whether the axis a node works along is the one the batch is on."""
    source = node[argument][0] if isinstance(node[argument], list | tuple) else node[argument]
    shape = _shape(shapes, source)
    return bool(shape) and shape[node[axis] % len(shape)] is None


def _refuse_dot(node: Node, shapes: Shapes) -> str | None:
    return None if isinstance(node["weight"], Param) else "its weight is computed, not a parameter"


def _refuse_add(node: Node, shapes: Shapes) -> str | None:
    if node["alpha"] != 1:
        return f"it multiplies by alpha = {node['alpha']}"
    return None if isinstance(node["self"], Ref | Param) else "its first operand is a number"


def _refuse_pair(node: Node, shapes: Shapes) -> str | None:
    if node.arguments.get("alpha", 1) != 1:
        return f"it multiplies by alpha = {node['alpha']}"
    return None if isinstance(node["self"], Ref) else "its first operand is not computed by the model"


def _refuse_div(node: Node, shapes: Shapes) -> str | None:
    return None if isinstance(node["other"], int | float) else "its divisor is computed: fold the model, fb.fold(model)"


def _refuse_larger(node: Node, shapes: Shapes) -> str | None:
    return None if isinstance(node["self"], Ref | Param) else "its first operand is a number"


def _refuse_matmul(node: Node, shapes: Shapes) -> str | None:
    first, second = (node["self"], node.arguments.get("other", node.arguments.get("mat2")))
    if min(len(_shape(shapes, first)), len(_shape(shapes, second))) < 2:
        return "an operand has fewer than two axes"
    return "it adds up over the batch" if _shape(shapes, first)[-1] is None else None


def _refuse_table(node: Node, shapes: Shapes) -> str | None:
    computed = [name for name, value in node.arguments.items() if isinstance(value, Ref | Param)]
    return None if computed == [next(iter(node.arguments))] else "it has more than one computed operand"


def _refuse_softmax(node: Node, shapes: Shapes) -> str | None:
    if _batch_axis(node, shapes):
        return "it runs over the batch"
    return _too_long(_shape(shapes, node["self"])[node["dim"]])


def _too_long(length: int | None) -> str | None:
    if length is not None and length > SOFTMAX_LENGTH:
        return f"it runs over {length} numbers, and its sum holds {SOFTMAX_LENGTH}"
    return None


def _refuse_masked_softmax(node: Node, shapes: Shapes) -> str | None:
    return _too_long(_shape(shapes, node["x"])[-1])


def _refuse_layer_norm(node: Node, shapes: Shapes) -> str | None:
    over = _shape(shapes, node["input"])[-len(node["normalized_shape"]):]
    return "it normalises over the batch" if None in over else None


def _refuse_group_norm(node: Node, shapes: Shapes) -> str | None:
    return "its image grows with the batch" if None in _shape(shapes, node["input"])[1:] else None


def _refuse_embedding(node: Node, shapes: Shapes) -> str | None:
    return None if isinstance(node["weight"], Param) else "its table is computed, not a parameter"


def _refuse_clamp(node: Node, shapes: Shapes) -> str | None:
    low, high = bounds(node)
    return None if low <= 0 <= high else f"its bounds [{low}, {high}] leave out 0"


def _refuse_mean(node: Node, shapes: Shapes) -> str | None:
    return "it averages over the batch" if not node["dim"] or _over_batch(node, shapes) else None


def _refuse_pool(node: Node, shapes: Shapes) -> str | None:
    shape = _shape(shapes, next(iter(node.arguments.values())))
    if len(shape) != len(node.shape or ()) or len(shape) < 4:
        return f"its input has {len(shape)} axes: give it a batch, channels, and an image of two or three axes"
    return "its image grows with the batch" if None in shape[1:] else None


def _refuse_largest(node: Node, shapes: Shapes) -> str | None:
    if node.target is not aten.amax.default:
        return "it gives positions as well: fold the model, fb.fold(model), and read only the values"
    return "it runs over the batch" if not node["dim"] or _over_batch(node, shapes) else None


def _over_batch(node: Node, shapes: Shapes) -> bool:
    shape = _shape(shapes, node["self"])
    return any(shape[axis] is None for axis in node["dim"])


def _refuse_pad(node: Node, shapes: Shapes) -> str | None:
    if min(node["pad"] if "pad" in node.arguments else node["padding"]) < 0:
        return "it crops with a negative margin: use a slice"
    if padding_mode(node) != "constant":
        return None
    return None if node["value"] in (None, 0, 0.0) else f"it pads with {node['value']}: only 0 always has a code"


def _refuse_concat(node: Node, shapes: Shapes) -> str | None:
    return "it joins along the batch" if _batch_axis(node, shapes, "tensors") else None


def _refuse_slice(node: Node, shapes: Shapes) -> str | None:
    whole = node["start"] in (None, 0) and (node["end"] is None or node["end"] >= 2**31) and node["step"] == 1
    return "it slices the batch" if _batch_axis(node, shapes) and not whole else None


def _refuse_index_select(node: Node, shapes: Shapes) -> str | None:
    if not isinstance(node["index"], Param):
        return "it selects by numbers that the model computes"
    return "it selects along the batch" if _batch_axis(node, shapes) else None


def _refuse_batch_axis(node: Node, shapes: Shapes) -> str | None:
    return "it splits the batch" if _batch_axis(node, shapes) else None


def _refuse_roll(node: Node, shapes: Shapes) -> str | None:
    shape = _shape(shapes, node["self"])
    if not node["dims"]:
        return "it rolls over all axes at once"
    return "it rolls the batch" if any(shape[axis] is None for axis in node["dims"]) else None


def _refuse_flip(node: Node, shapes: Shapes) -> str | None:
    shape = _shape(shapes, node["self"])
    return "it turns the batch round" if any(shape[axis] is None for axis in node["dims"]) else None


def _refuse_resize(node: Node, shapes: Shapes) -> str | None:
    return "its size is not known" if None in _shape(shapes, node["input"])[2:] else None


def _refuse_expand(node: Node, shapes: Shapes) -> str | None:
    before, after = _shape(shapes, node["self"]), node.shape or ()
    grown = [new for old, new in zip(before[::-1], after[::-1], strict=False) if old != new]
    return "it repeats along the batch" if None in (*grown, *after[:len(after) - len(before)]) else None


def _refuse_reshape(node: Node, shapes: Shapes) -> str | None:
    if node.shape is not None and node.shape.count(None) > 1:
        return "its shape depends on the batch along two axes"
    return None


def _refuse_cast(node: Node, shapes: Shapes) -> str | None:
    return None if node["dtype"] == torch.float32 else f"it casts to {node['dtype']}"


_MIRRORS: dict[Any, str] = {
    aten.reflection_pad1d.default: "reflect", aten.reflection_pad2d.default: "reflect",
    aten.reflection_pad3d.default: "reflect", aten.replication_pad1d.default: "replicate",
    aten.replication_pad2d.default: "replicate", aten.replication_pad3d.default: "replicate",
}

OPERATORS: tuple[Operator, ...] = (
    Operator("conv", "dot", (aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding,
                             aten.conv3d.default, aten.conv3d.padding), _refuse_dot),
    Operator("linear", "dot", (aten.linear.default,), _refuse_dot),
    Operator("matmul", "combine", (aten.matmul.default, aten.bmm.default), _refuse_matmul,
             operands=("self", "other")),
    Operator("add", "combine", (aten.add.Tensor,), _refuse_add, operands=("self", "other")),
    Operator("sub", "combine", (aten.sub.Tensor,), _refuse_pair, operands=("other",)),
    Operator("mul", "combine", (aten.mul.Tensor,), _refuse_pair, operands=("other",)),
    Operator("div", "combine", (aten.div.Tensor,), _refuse_div),
    Operator("quotient", "combine", (quotient,), operands=("first", "second")),
    Operator("larger", "combine", (aten.maximum.default, aten.minimum.default), _refuse_larger,
             operands=("self", "other")),
    Operator("choose", "combine", (aten.where.self,), operands=("self", "other")),
    Operator("enter", "combine", (entered,)),
    Operator("function", "combine", tuple(row.call for row in UNARY), _refuse_table),
    Operator("prelu", "combine", (aten.prelu.default,), _refuse_dot),
    Operator("softmax", "combine", (aten.softmax.int,), _refuse_softmax),
    Operator("masked_softmax", "combine", (masked_softmax,), _refuse_masked_softmax),
    Operator("log_softmax", "combine", (aten.log_softmax.int,), _refuse_softmax),
    Operator("layer_norm", "combine", (aten.layer_norm.default,), _refuse_layer_norm),
    Operator("rms_norm", "combine", (aten.rms_norm.default,), _refuse_layer_norm),
    Operator("group_norm", "combine", (aten.group_norm.default,), _refuse_group_norm),
    Operator("embedding", "combine", (aten.embedding.default,), _refuse_embedding),
    Operator("concat", "combine", (aten.cat.default, aten.concat.default, join), _refuse_concat,
             operands=("tensors",)),
    Operator("average_pool", "combine", (aten.avg_pool2d.default, aten.avg_pool3d.default), _refuse_pool),
    Operator("adaptive_average_pool", "combine",
             (aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default), _refuse_pool),
    Operator("mean", "combine", (aten.mean.dim,), _refuse_mean),
    Operator("clamp", "clamp", (aten.relu.default, aten.relu6.default, aten.hardtanh.default,
                                aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default),
             _refuse_clamp),
    Operator("max_pool", "pass", (aten.max_pool2d.default, aten.max_pool3d.default), _refuse_pool),
    Operator("adaptive_max_pool", "pass", (adaptive_max_pool,), _refuse_pool),
    Operator("largest", "pass", (aten.amax.default, aten.max.dim, aten.adaptive_max_pool2d.default,
                                 aten.adaptive_max_pool3d.default), _refuse_largest),
    Operator("reshape", "pass", (aten.reshape.default, aten.view.default, aten.flatten.using_ints,
                                 aten.unflatten.int, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default,
                                 aten.unsqueeze.default), _refuse_reshape),
    Operator("transpose", "pass", (aten.transpose.int, aten.permute.default, aten.t.default)),
    Operator("channel_shuffle", "pass", (aten.channel_shuffle.default,)),
    Operator("pixel_shuffle", "pass", (aten.pixel_shuffle.default,)),
    Operator("resize_nearest", "pass", (
        aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec,
        aten._upsample_nearest_exact1d.vec, aten._upsample_nearest_exact2d.vec,
        aten._upsample_nearest_exact3d.vec), _refuse_resize),
    Operator("expand", "pass", (aten.expand.default,), _refuse_expand),
    Operator("insert_zeros", "pass", (insert_zeros,)),
    Operator("index_select", "pass", (aten.index_select.default,), _refuse_index_select),
    Operator("slice", "pass", (aten.slice.Tensor,), _refuse_slice),
    Operator("select", "pass", (aten.select.int,), _refuse_batch_axis),
    Operator("split", "pass", (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default),
             _refuse_batch_axis),
    Operator("roll", "pass", (aten.roll.default,), _refuse_roll),
    Operator("flip", "pass", (aten.flip.default,), _refuse_flip),
    Operator("item", "pass", (operator.getitem,)),
    Operator("recurrence", "pass", (recurrence,)),
    Operator("step", "pass", (step,)),
    Operator("state", "pass", (state,)),
    Operator("pad", "pass", (aten.pad.default, aten.constant_pad_nd.default, *_MIRRORS), _refuse_pad),
    Operator("dropout", "gone", (aten.dropout.default, aten.feature_dropout.default)),
    Operator("identity", "gone", (aten.clone.default, aten.contiguous.default, aten.detach.default,
                                  aten.alias.default, aten.lift_fresh_copy.default)),
    Operator("cast", "gone", (aten.to.dtype, aten._to_copy.default), _refuse_cast),
    Operator("batch_norm", "norm", (aten.batch_norm.default,)),
    Operator("size", "size", (aten.sym_size.int, operator.add, operator.sub, operator.mul, operator.floordiv,
                              operator.truediv, operator.mod)),
)

_BY_TARGET = {target: row for row in OPERATORS for target in row.targets}

TRAINING_ARGUMENT = {"dropout": "train", "batch_norm": "training"}
"""Argument that train() and eval() set, by operator name."""

def operator_of(target: Callable[..., Any]) -> Operator | None:
    """The row of a call, or None when the table has none. A node keeps its own: `node.operator`.

    A function of one number is one whatever its name: a call that PyTorch marks as pointwise and that takes one tensor.
    """
    row = _BY_TARGET.get(target)
    return _BY_TARGET[aten.sigmoid.default] if row is None and _is_function(target) else row


def _is_function(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    if schema is None or schema.is_mutable or torch.Tag.pointwise not in target.tags:
        return False
    if call_name(target) in EXACT_CALLS:  # comparisons, and what is done with truth values
        return False
    kinds = [str(argument.type) for argument in schema.arguments]
    results = [str(result.type) for result in schema.returns]
    return bool(kinds) and kinds[0] == "Tensor" and results == ["Tensor"] and not any(
        "Tensor" in kind for kind in kinds[1:])


def bounds(node: Node) -> tuple[float, float]:
    """(low, high) of a ReLU or clamp; infinite where there is none, as of any node that bounds nothing."""
    if node.role != "clamp":
        return -math.inf, math.inf
    match node.target:
        case aten.relu.default:
            return 0.0, math.inf
        case aten.relu6.default:
            return 0.0, 6.0
        case aten.hardtanh.default:
            return float(node["min_val"]), float(node["max_val"])
        case _:
            low, high = node.arguments.get("min"), node.arguments.get("max")
            return (-math.inf if low is None else float(low)), (math.inf if high is None else float(high))


def padding_mode(node: Node) -> str:
    """`constant`, `reflect`, `replicate` or `circular`."""
    return _MIRRORS.get(node.target) or node.arguments.get("mode", "constant")


def reduced_axes(node: Node) -> tuple[int, ...]:
    """Ascending axes that a mean, a maximum or a global average pool reduces, counted from the front."""
    if "dim" not in node.arguments:
        return tuple(range(2, len(node.shape or ())))
    rank = len(node.shape or ()) + (0 if node["keepdim"] else len(node["dim"]))
    return tuple(sorted(axis % rank for axis in node["dim"]))

"""The operator table: which ATen calls we know, what each is called, and the part it plays.

One row an operator. `role` decides where quantizers stand (quant/plan.py); `refuse` says, in words, which
uses of a known operator have no integer form.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fewbits.graph.graph import Node, Param

aten = torch.ops.aten

Role = Literal[
    "dot",      # sums of products with weights; quantizes its weights and its result
    "combine",  # makes new numbers out of activations; its result has a grid of its own
    "clamp",    # bounds a result: part of the operator before it, where that one has no other reader
    "pass",     # moves numbers or picks among them; keeps the grid of what it reads
    "gone",     # does nothing when the model runs
    "norm",     # batch norm: folded into its neighbour
    "size",     # works on sizes, not on tensors
]


@dataclass(frozen=True)
class Operator:
    """A row. name: what recipes call it; weight, bias: arguments that hold parameters of a dot product;
    refuse: a sentence for a use without an integer form, or None."""

    name: str
    role: Role
    targets: tuple[Callable[..., Any], ...]
    refuse: Callable[[Node], str | None] = lambda node: None


def _refuse_conv(node: Node) -> str | None:
    if not isinstance(node["weight"], Param):
        return "its weight is computed, not a parameter"
    return None


def _refuse_add(node: Node) -> str | None:
    return None if node["alpha"] == 1 else f"it multiplies by alpha = {node['alpha']}"


def _refuse_clamp(node: Node) -> str | None:
    low, high = bounds(node)
    return None if low <= 0 <= high else f"its bounds [{low}, {high}] leave out 0"


def _refuse_mean(node: Node) -> str | None:
    if not node["dim"] or 0 in mean_axes(node):
        return "it averages over the batch"
    return None


def _refuse_adaptive_pool(node: Node) -> str | None:
    return None if set(node["output_size"]) == {1} else "its output is not 1×1: use a pool of fixed size"


def _refuse_pad(node: Node) -> str | None:
    if node.arguments.get("mode", "constant") != "constant" or node["value"] not in (None, 0, 0.0):
        return "it pads with something other than the constant 0"
    return "it crops with a negative margin: use a slice" if min(node["pad"]) < 0 else None


def _refuse_concat(node: Node) -> str | None:
    return "it joins along the batch" if node["dim"] == 0 else None


def _refuse_slice(node: Node) -> str | None:
    whole = node["start"] in (None, 0) and (node["end"] is None or node["end"] >= 2**31)
    return "it slices the batch" if node["dim"] == 0 and not (whole and node["step"] == 1) else None


def _refuse_axis(node: Node) -> str | None:
    return "it splits the batch" if node["dim"] == 0 else None


def _refuse_select(node: Node) -> str | None:
    return "it picks from the batch" if node["dim"] == 0 else None


def _refuse_reshape(node: Node) -> str | None:
    if node.shape is not None and node.shape.count(None) > 1:
        return "its shape depends on the batch along two axes"
    return None


def _refuse_cast(node: Node) -> str | None:
    return None if node["dtype"] == torch.float32 else f"it casts to {node['dtype']}"


OPERATORS: tuple[Operator, ...] = (
    Operator("conv", "dot", (aten.conv2d.default, aten.conv2d.padding), _refuse_conv),
    Operator("linear", "dot", (aten.linear.default,), _refuse_conv),
    Operator("add", "combine", (aten.add.Tensor,), _refuse_add),
    Operator("concat", "combine", (aten.cat.default, aten.concat.default), _refuse_concat),
    Operator("average_pool", "combine", (aten.avg_pool2d.default,)),
    Operator("global_average_pool", "combine", (aten.adaptive_avg_pool2d.default,), _refuse_adaptive_pool),
    Operator("mean", "combine", (aten.mean.dim,), _refuse_mean),
    Operator("clamp", "clamp", (aten.relu.default, aten.relu6.default, aten.hardtanh.default,
                                aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default),
             _refuse_clamp),
    Operator("max_pool", "pass", (aten.max_pool2d.default,)),
    Operator("reshape", "pass", (aten.reshape.default, aten.view.default, aten.flatten.using_ints,
                                 aten.unflatten.int, aten.squeeze.dim, aten.squeeze.dims,
                                 aten.unsqueeze.default), _refuse_reshape),
    Operator("transpose", "pass", (aten.transpose.int, aten.permute.default, aten.t.default)),
    Operator("slice", "pass", (aten.slice.Tensor,), _refuse_slice),
    Operator("select", "pass", (aten.select.int,), _refuse_select),
    Operator("split", "pass", (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default),
             _refuse_axis),
    Operator("item", "pass", (operator.getitem,)),
    Operator("pad", "pass", (aten.pad.default, aten.constant_pad_nd.default), _refuse_pad),
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

# Calls that write into their first argument, with the ones that do not.
OUT_OF_PLACE = {
    aten.relu_.default: aten.relu.default, aten.relu6_.default: aten.relu6.default,
    aten.hardtanh_.default: aten.hardtanh.default, aten.clamp_.default: aten.clamp.default,
    aten.add_.Tensor: aten.add.Tensor, aten.dropout_.default: aten.dropout.default,
    aten.clamp_min_.default: aten.clamp_min.default,
}


def operator_of(node: Node) -> Operator | None:
    """The node's row, or None when the table has none."""
    return _BY_TARGET.get(node.target)


def bounds(node: Node) -> tuple[float, float]:
    """(low, high) of a clamp node; infinite where there is none."""
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


def mean_axes(node: Node) -> tuple[int, ...]:
    """Ascending axes that a mean or a global average pool reduces, counted from the front."""
    if node.target is aten.adaptive_avg_pool2d.default:
        assert node.shape is not None, "a pool returns one tensor"
        return tuple(range(len(node.shape) - 2, len(node.shape)))
    rank = len(node.shape or ()) + (0 if node["keepdim"] else len(node["dim"]))
    return tuple(sorted(axis % rank for axis in node["dim"]))

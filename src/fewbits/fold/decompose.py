"""Larger operators as the smaller ones the program knows: part of folding, with outputs equal up to rounding."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from fewbits.fold import products
from fewbits.fold.attention import attention, softmax, turned
from fewbits.fold.draft import Draft
from fewbits.fold.interpolation import INTERPOLATIONS, interpolated
from fewbits.fold.masks import is_exact, reads_floats
from fewbits.fold.norms import divided, length, multiplied
from fewbits.fold.pieces import as_number, chosen, gated_by_comparison, masked, threshold
from fewbits.fold.rearranged import cropped, gathered, indexed, padded, pixel_unshuffled, repeated, scattered
from fewbits.fold.recurrent import CELLS, LAYERS, cell, layers, zero_state
from fewbits.fold.unrolled import restacked
from fewbits.graph.functions import adaptive_max_pool, bounded, insert_zeros, join, quotient
from fewbits.graph.graph import Node, Param, Ref, Shape
from fewbits.graph.model import Model

aten = torch.ops.aten


@torch.no_grad()
def decompose(model: Model) -> tuple[list[Node], dict[str, str]]:
    """The graph's nodes with the known large operators taken apart, and new names for values that went away.

    Parameters that the parts need (rearranged weights, interpolation matrices, masks) are put into the model.
    """
    draft = Draft(model)
    for node in model.graph.nodes:
        rule = _RULES.get(node.target)
        fits = node.dtype == "float32" or rule in _OF_ANY_TYPE
        if rule is None or not fits or not rule(draft, node):
            draft.keep(node)
    return draft.finish(), draft.renamed


Decomposition = Callable[[Draft, Node], bool]


def _transposed_conv(draft: Draft, node: Node) -> bool:
    """Zeros between the inputs, then a convolution with the kernel reversed and its channels swapped."""
    if not isinstance(node["weight"], Param) or node.shape is None:
        return False
    weight = draft.model.tensor(node["weight"].name).detach()
    rank, groups, kernel = weight.ndim - 2, node["groups"], weight.shape[2:]
    stride, padding, extra, dilation = (_per_axis(node[name], rank)
                                        for name in ("stride", "padding", "output_padding", "dilation"))
    flipped = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(tuple(range(2, weight.ndim)))
    name = f"{node.name}.kernel"
    reversed_weight = draft.parameter(name, nn.Parameter(flipped.contiguous()))
    value: Any = node["input"]
    shape = draft.shape(value)
    sizes = [(size or 0) for size in shape[2:]]
    if any(step > 1 for step in stride):
        sizes = [(size - 1) * step + 1 for size, step in zip(sizes, stride, strict=True)]
        value = draft.emit(node, f"{node.name}.spread", insert_zeros, {"x": value, "factors": stride},
                           (*shape[:2], *sizes))
    margins = [(d * (k - 1) - p, d * (k - 1) - p + e)
               for d, k, p, e in zip(dilation, kernel, padding, extra, strict=True)]
    if min(min(pair) for pair in margins) < 0:  # more padding than kernel crops the input
        value = cropped(draft, node, value, [size for pair in reversed(margins) for size in pair])
        sizes = [size or 0 for size in draft.shape(value)[2:]]
        margins = [(max(before, 0), max(after, 0)) for before, after in margins]
    if any(before or after for before, after in margins):
        flat = [size for pair in reversed(margins) for size in pair]
        padded = (*shape[:2], *(size + sum(pair) for size, pair in zip(sizes, margins, strict=True)))
        value = draft.emit(node, f"{node.name}.padded", aten.pad.default,
                           {"self": value, "pad": flat, "mode": "constant", "value": None}, padded)
    convolve = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)[rank - 1]
    draft.emit(node, node.name, convolve, {
        "input": value, "weight": reversed_weight, "bias": node["bias"], "stride": [1] * rank, "padding": [0] * rank,
        "dilation": dilation, "groups": groups}, node.shape)
    return True


def _per_axis(value: Any, rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _division(draft: Draft, node: Node) -> bool:
    """By a parameter a product with its inverse; by what the model computes a quotient."""
    both = node["self"], node["other"]
    if all(is_exact(draft, value) for value in both) and not any(reads_floats(draft, value) for value in both):
        return False
    if divided(draft, node):
        return True
    if isinstance(node["other"], Ref) and isinstance(node["self"], Ref | Param):
        draft.emit(node, node.name, quotient, {"first": node["self"], "second": node["other"]}, node.shape)
        return True
    if not isinstance(node["other"], Param):
        return False
    inverse = draft.parameter(f"{node.name}.inverse", draft.model.tensor(node["other"].name).detach().reciprocal())
    draft.emit(node, node.name, aten.mul.Tensor, {"self": node["self"], "other": inverse}, node.shape)
    return True


def _number_first(draft: Draft, node: Node) -> bool:
    """2 · x and W · x as x · 2 and x · W; x · (x > 0) as a function of x; norms written by hand."""
    if multiplied(draft, node):
        return True
    if isinstance(node["self"], Ref):
        return gated_by_comparison(draft, node)
    draft.emit(node, node.name, node.target, {"self": node["other"], "other": node["self"]}, node.shape)
    return True


def _added_product(draft: Draft, node: Node) -> bool:
    """self + value · tensor1 · tensor2."""
    first, second = node["tensor1"], node["tensor2"]
    if not isinstance(first, Ref):
        first, second = second, first
    if not isinstance(first, Ref):
        return False
    product = draft.emit(node, f"{node.name}.product", aten.mul.Tensor, {"self": first, "other": second}, node.shape)
    if node["value"] != 1:
        product = draft.emit(node, f"{node.name}.scaled", aten.mul.Tensor, {"self": product, "other": node["value"]},
                             node.shape)
    draft.emit(node, node.name, aten.add.Tensor, {"self": node["self"], "other": product, "alpha": 1}, node.shape)
    return True


def _instance_norm(draft: Draft, node: Node) -> bool:
    """A group norm with a channel in each group; with running statistics a batch norm."""
    given = {name: node[name] for name in ("input", "weight", "bias")}
    if node["use_input_stats"]:
        channels = draft.shape(node["input"])[1]
        arguments = {"input": given["input"], "num_groups": channels, "weight": given["weight"], "bias": given["bias"],
                     "eps": node["eps"], "cudnn_enabled": False}
        draft.emit(node, node.name, aten.group_norm.default, arguments, node.shape)
        return True
    given |= {name: node[name] for name in ("running_mean", "running_var")}
    given |= {"training": False, "momentum": node["momentum"], "eps": node["eps"], "cudnn_enabled": False}
    draft.emit(node, node.name, aten.batch_norm.default, given, node.shape)
    return True


def _pool_of_one_axis(draft: Draft, node: Node) -> bool:
    """[N, C, L] as an image of height 1."""
    shape, target = draft.shape(node["self"]), node.shape
    assert target is not None, "a pool returns one tensor"
    image = draft.emit(node, f"{node.name}.image", aten.unsqueeze.default, {"self": node["self"], "dim": 2},
                       (*shape[:2], 1, shape[2]))
    arguments = dict(node.arguments) | {"self": image}
    for name in ("kernel_size", "stride", "padding", "dilation", "output_size"):
        if arguments.get(name):
            arguments[name] = [0 if name == "padding" else 1, _per_axis(arguments[name], 1)[0]]
    if node.target is aten.avg_pool1d.default:
        arguments["divisor_override"] = None
    flat = draft.emit(node, f"{node.name}.pooled", _OF_IMAGES[node.target], arguments, (*target[:2], 1, target[2]))
    draft.emit(node, node.name, aten.squeeze.dim, {"self": flat, "dim": 2}, target)
    return True


_OF_IMAGES: dict[Any, Any] = {
    aten.max_pool1d.default: aten.max_pool2d.default, aten.avg_pool1d.default: aten.avg_pool2d.default,
    aten.adaptive_avg_pool1d.default: aten.adaptive_avg_pool2d.default,
}


def _only_values(draft: Draft, node: Node) -> bool:
    """The largest or least without their positions, where nobody reads these."""
    readers = draft.readers[node.name]
    if not readers or any(reader["argument1"] != 0 for reader in readers):
        return False
    name, shape = f"{readers[0].name}.values", readers[0].shape
    if node.target is aten.max.dim:
        arguments = {"self": node["self"], "dim": [node["dim"]], "keepdim": node["keepdim"]}
        draft.emit(node, name, aten.amax.default, arguments, shape)
    elif node.target is aten.min.dim:
        _least_of(draft, node, name, node["self"], [node["dim"]], node["keepdim"], shape)
    else:
        draft.emit(node, name, adaptive_max_pool, {"x": node["self"], "output_size": node["output_size"]}, shape)
    draft.renamed.update({reader.name: name for reader in readers})
    return True


def _least(draft: Draft, node: Node) -> bool:
    _least_of(draft, node, node.name, node["self"], node["dim"], node["keepdim"], node.shape)
    return True


def _least_of(draft: Draft, node: Node, name: str, x: Any, dim: list[int], keepdim: bool, shape: Shape | None) -> None:
    """The least is what the largest is of all numbers turned round."""
    turned = draft.emit(node, f"{name}.negative", aten.neg.default, {"self": x}, draft.shape(x))
    largest = draft.emit(node, f"{name}.largest", aten.amax.default, {"self": turned, "dim": dim, "keepdim": keepdim},
                         shape)
    draft.emit(node, name, aten.neg.default, {"self": largest}, shape)


def _clamp_away(draft: Draft, node: Node) -> bool:
    """Between bounds given as tensors of one number; a function of one number where they leave out 0."""
    low, high = (_one_number(draft, node.arguments.get(name), otherwise)
                 for name, otherwise in (("min", -math.inf), ("max", math.inf)))
    if low is None or high is None:
        return False
    if low <= 0 <= high:
        if node.target is not aten.clamp.Tensor:
            return False
        draft.emit(node, node.name, aten.clamp.default, {
            "self": node["self"], "min": None if low == -math.inf else low, "max": None if high == math.inf else high},
            node.shape)
        return True
    limit = torch.finfo(torch.float32).max
    draft.emit(node, node.name, bounded, {"x": node["self"], "low": max(low, -limit), "high": min(high, limit)},
               node.shape)
    return True


def _one_number(draft: Draft, value: Any, otherwise: float) -> float | None:
    if isinstance(value, Param):
        tensor = draft.model.tensor(value.name)
        return float(tensor) if tensor.numel() == 1 else None
    return otherwise if value is None else float(value) if isinstance(value, int | float) else None


def _rms_norm(draft: Draft, node: Node) -> bool:
    """Its ε written out."""
    if node["eps"] is not None:
        return False
    arguments = dict(node.arguments) | {"eps": torch.finfo(torch.float32).eps}
    draft.emit(node, node.name, aten.rms_norm.default, arguments, node.shape)
    return True


def _chosen(draft: Draft, node: Node) -> bool:
    """A choice by a comparison is a function of one number; one by a mask a choice between two values."""
    if chosen(draft, node) if "condition" in node.arguments else masked(draft, node):
        return True
    if all(is_exact(draft, value) for value in node.arguments.values()):
        return False
    if "condition" in node.arguments:
        condition, first, second = node["condition"], node["self"], node["other"]
    else:
        condition, first, second = node["mask"], node["value"], node["self"]
    first, second = (value if isinstance(value, Ref | Param) else draft.parameter(
        f"{node.name}.number", torch.tensor(float(value))) for value in (first, second))
    draft.emit(node, node.name, aten.where.self, {"condition": condition, "self": first, "other": second}, node.shape)
    return True


def _sum(draft: Draft, node: Node) -> bool:
    """A sum over axes of known size is their mean, times how many numbers they hold."""
    shape = draft.shape(node["self"])
    sizes = [shape[axis] for axis in node["dim"]]
    if None in sizes or not sizes:
        return False
    mean = draft.emit(node, f"{node.name}.mean", aten.mean.dim,
                      {"self": node["self"], "dim": node["dim"], "keepdim": node["keepdim"]}, node.shape)
    count = math.prod(size for size in sizes if size is not None)
    draft.emit(node, node.name, aten.mul.Tensor, {"self": mean, "other": float(count)}, node.shape)
    return True


def _gated(draft: Draft, node: Node) -> bool:
    """The first half times the sigmoid of the second (Dauphin et al. 2017, eq. 1)."""
    shape = draft.shape(node["self"])
    axis = node["dim"] % len(shape)
    size = shape[axis]
    if size is None:
        return False
    half = size // 2
    first, second = (draft.emit(node, f"{node.name}.{name}", aten.slice.Tensor,
                                {"self": node["self"], "dim": axis, "start": start, "end": start + half, "step": 1},
                                node.shape) for name, start in (("values", 0), ("gates", half)))
    gate = draft.emit(node, f"{node.name}.gate", aten.sigmoid.default, {"self": second}, node.shape)
    draft.emit(node, node.name, aten.mul.Tensor, {"self": first, "other": gate}, node.shape)
    return True


def _stack(draft: Draft, node: Node) -> bool:
    assert node.shape is not None, "a stack is one tensor"
    if restacked(draft, node):
        return True
    axis = node["dim"] % len(node.shape)
    slim = (*node.shape[:axis], 1, *node.shape[axis + 1:])
    pieces = [draft.emit(node, f"{node.name}.{i}", aten.unsqueeze.default, {"self": item, "dim": axis}, slim)
              for i, item in enumerate(node["tensors"])]
    draft.emit(node, node.name, aten.cat.default, {"tensors": pieces, "dim": axis}, node.shape)
    return True


def _unbind(draft: Draft, node: Node) -> bool:
    """Each part that is read as a selection of its own."""
    for reader in draft.readers[node.name]:
        draft.emit(node, f"{reader.name}.picked", aten.select.int,
                   {"self": node["self"], "dim": node["dim"], "index": reader["argument1"]}, reader.shape)
        draft.renamed[reader.name] = f"{reader.name}.picked"
    return True


def _taken_over(draft: Draft, node: Node) -> bool:
    """A part of a result whose node has already made it under another name."""
    return node.name in draft.renamed or (isinstance(of := node.arguments.get("argument0"), Ref)
                                          and of.name in draft.rolled)


def _expand(draft: Draft, node: Node) -> bool:
    """To the size it has."""
    if draft.shape(node["self"]) != node.shape or not isinstance(node["self"], Ref):
        return False
    draft.renamed[node.name] = node["self"].name
    return True


def _copied(draft: Draft, node: Node) -> bool:
    """What is written over a tensor, in that one's shape and type."""
    source = node["src"]
    if not isinstance(source, Ref):
        return False
    if draft.dtype(source) != node.dtype:
        cast = {"self": source, "dtype": getattr(torch, node.dtype), "non_blocking": False, "copy": False,
                "memory_format": None}
        source = draft.emit(node, draft.fresh(f"{node.name}.cast"), aten.to.dtype, cast, draft.shape(source))
    if draft.shape(source) == node.shape:
        draft.renamed[node.name] = source.name
        return True
    sizes = [-1 if size is None else size for size in node.shape or ()]
    draft.emit(node, node.name, aten.expand.default, {"self": source, "size": sizes, "implicit": False}, node.shape)
    return True


def _cat(draft: Draft, node: Node) -> bool:
    """With a constant of one image among them, which stands for every image of the others."""
    alone = any(isinstance(item, Param) and draft.shape(item)[:1] == (1,) for item in node["tensors"])
    if not alone or (node.shape or (1,))[0] is not None:
        return False
    draft.emit(node, node.name, join, {"tensors": node["tensors"], "dim": node["dim"]}, node.shape)
    return True


_RULES: dict[Any, Decomposition] = {  # by the call that is taken apart
    aten.conv_transpose1d.default: _transposed_conv, aten.conv_transpose2d.input: _transposed_conv,
    aten.conv_transpose3d.input: _transposed_conv,
    aten.scaled_dot_product_attention.default: attention, aten.softmax.int: softmax, aten.log_softmax.int: turned,
    aten.matmul.default: products.with_parameter,
    aten.addmm.default: products.added, aten.baddbmm.default: products.added, aten.linear.default: products.linear,
    aten.einsum.default: products.einsum, aten.add.Tensor: products.with_alpha, aten.sub.Tensor: products.with_alpha,
    aten.div.Tensor: _division, aten.mul.Tensor: _number_first,
    aten.addcmul.default: _added_product, aten.instance_norm.default: _instance_norm,
    aten.rms_norm.default: _rms_norm, aten.linalg_vector_norm.default: length,
    **dict.fromkeys(INTERPOLATIONS, interpolated),
    aten.max_pool1d.default: _pool_of_one_axis, aten.avg_pool1d.default: _pool_of_one_axis,
    aten.adaptive_avg_pool1d.default: _pool_of_one_axis,
    aten.max.dim: _only_values, aten.min.dim: _only_values, aten.adaptive_max_pool2d.default: _only_values,
    aten.adaptive_max_pool3d.default: _only_values, aten.amin.default: _least,
    aten.clamp.Tensor: _clamp_away, aten.clamp.default: _clamp_away, aten.clamp_min.default: _clamp_away,
    aten.clamp_max.default: _clamp_away,
    aten.sum.dim_IntList: _sum, aten.glu.default: _gated,
    aten.stack.default: _stack, aten.unbind.int: _unbind, operator.getitem: _taken_over,
    aten.select.int: _taken_over, aten.zeros.default: zero_state,
    **dict.fromkeys(CELLS, cell), **dict.fromkeys(LAYERS, layers),
    aten.expand.default: _expand, aten.cat.default: _cat, aten.repeat.default: repeated,
    aten.slice_scatter.default: scattered, aten.select_scatter.default: scattered, aten.index.Tensor: indexed,
    aten.copy.default: _copied, aten.gather.default: gathered, aten.pixel_unshuffle.default: pixel_unshuffled,
    aten.pad.default: padded, aten.constant_pad_nd.default: padded,
    aten.where.self: _chosen, aten.where.Scalar: _chosen, aten.where.ScalarSelf: _chosen,
    aten.where.ScalarOther: _chosen, aten.masked_fill.Scalar: _chosen, aten.masked_fill.Tensor: _chosen,
    aten.to.dtype: as_number, aten.threshold.default: threshold,
}

_OF_ANY_TYPE = frozenset((scattered, indexed, gathered, repeated, pixel_unshuffled, _expand, _copied, _cat, _stack,
                          _unbind, _taken_over, zero_state))
"""Rules that move numbers about, integers and truth values too; the others are about float32."""

def why_left(node: Node, shapes: Mapping[str, Shape | None]) -> str:
    """Why folding leaves a call that it takes apart elsewhere, in words."""
    if node.target is aten.scaled_dot_product_attention.default:
        query, key = (shapes.get(node[name].name) or () for name in ("query", "key"))
        if None in (*query[-2:], *key[-2:]):
            return ("it attends along the batch, the first axis of the example: torch.nn.MultiheadAttention takes the "
                    "sequence first unless it is made with batch_first=True; make it so, or turn its inputs")
        if node["dropout_p"]:
            return "it drops attention weights at random: give dropout_p=0.0 in evaluation"
    return "no integer form of this use of it is known"


TAKEN_APART = frozenset(_RULES)
"""The calls that folding may take apart."""

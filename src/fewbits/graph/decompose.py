"""Larger operators as the smaller ones the program knows: part of folding, with outputs equal up to rounding."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.graph.draft import Draft
from fewbits.graph.functions import adaptive_max_pool, insert_zeros, join, masked_softmax, quotient
from fewbits.graph.graph import Node, Param, Ref, Shape
from fewbits.graph.model import Model
from fewbits.graph.pieces import as_number, chosen, gated_by_comparison, masked, threshold
from fewbits.graph.recurrent import gru, gru_cell, lstm, lstm_cell, zero_state

aten = torch.ops.aten


def decompose(model: Model) -> tuple[list[Node], dict[str, str]]:
    """The graph's nodes with the known large operators taken apart, and new names for values that went away.

    Parameters that the parts need (rearranged weights, interpolation matrices, masks) are put into the model.
    """
    draft = Draft(model)
    for node in model.graph.nodes:
        rule = _RULES.get(node.target)
        if rule is None or not rule(draft, node):
            draft.keep(node)
    return draft.finish(), draft.renamed


Rule = Callable[[Draft, Node], bool]


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
    if min(min(pair) for pair in margins) < 0:
        return False  # more padding than kernel crops the input: left to be refused by name
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


def _attention(draft: Draft, node: Node) -> bool:
    """softmax(q·kᵀ·scale + mask)·v, its scale inside the softmax (Vaswani et al. 2017, eq. 1)."""
    query, key, value = node["query"], node["key"], node["value"]
    q, k = draft.shape(query), draft.shape(key)
    width, length, span = q[-1], q[-2], k[-2]
    if node["dropout_p"] or node.arguments.get("enable_gqa") or None in (width, length, span):
        return False
    mask = None
    if node["attn_mask"] is not None:
        kept = _kept(draft, node["attn_mask"])
        if kept is None:
            return False
        mask = draft.parameter(f"{node.name}.mask", kept)
    elif node["is_causal"]:
        assert length is not None, "checked above"
        assert span is not None, "checked above"
        mask = draft.parameter(f"{node.name}.mask", torch.ones(length, span, dtype=torch.bool).tril())
    assert width is not None, "checked above"
    factor = 1 / math.sqrt(width) if node.arguments.get("scale") is None else float(node["scale"])
    swapped = draft.emit(node, f"{node.name}.keys", aten.transpose.int, {"self": key, "dim0": -2, "dim1": -1},
                         (*k[:-2], k[-1], k[-2]))
    scores = draft.emit(node, f"{node.name}.scores", aten.matmul.default, {"self": query, "other": swapped},
                        (*q[:-1], span))
    weights = draft.emit(node, f"{node.name}.weights", masked_softmax,
                         {"x": scores, "mask": mask, "factor": factor}, (*q[:-1], span))
    draft.emit(node, node.name, aten.matmul.default, {"self": weights, "other": value}, node.shape)
    return True


def _kept(draft: Draft, mask: Any) -> torch.Tensor | None:
    """A mask parameter as bool: True where attention may look; None when it is no mask of 0 and −inf."""
    if not isinstance(mask, Param):
        return None
    tensor = draft.model.tensor(mask.name).detach()
    if tensor.dtype == torch.bool:
        return tensor
    blocked = torch.isneginf(tensor) | (tensor <= -1e4)
    return ~blocked if bool((blocked | (tensor == 0)).all()) else None


def _turned(draft: Draft, node: Node) -> bool:
    """A softmax or its logarithm over another axis than the last, with that one turned to the end."""
    rank = len(draft.shape(node["self"]))
    axis = node["dim"] % rank
    if axis == rank - 1:
        return False
    shape = list(draft.shape(node["self"]))
    shape[axis], shape[-1] = shape[-1], shape[axis]
    turned = draft.emit(node, f"{node.name}.turned", aten.transpose.int,
                        {"self": node["self"], "dim0": axis, "dim1": -1}, tuple(shape))
    rows = draft.emit(node, f"{node.name}.rows", node.target, {"self": turned, "dim": -1, "dtype": None}, tuple(shape))
    draft.emit(node, node.name, aten.transpose.int, {"self": rows, "dim0": axis, "dim1": -1}, node.shape)
    return True


def _softmax(draft: Draft, node: Node) -> bool:
    """A mask added or filled in front goes inside."""
    if _turned(draft, node):
        return True
    before = draft.made_by(node["self"])
    if before is None:
        return False
    mask = None
    if before.target is aten.add.Tensor and isinstance(before["other"], Param):
        mask = _kept(draft, before["other"])
    elif before.target is aten.masked_fill.Scalar and before["value"] <= -1e4 and isinstance(before["mask"], Param):
        mask = ~draft.model.tensor(before["mask"].name).bool()
    if mask is None:
        return False
    draft.drop(before)
    kept = draft.parameter(f"{node.name}.mask", mask)
    draft.emit(node, node.name, masked_softmax, {"x": before["self"], "mask": kept, "factor": 1.0}, node.shape)
    return True


def _matmul_with_parameter(draft: Draft, node: Node) -> bool:
    """x @ W with a parameter W [K, O] is a linear layer with Wᵀ."""
    other = node.arguments.get("other", node.arguments.get("mat2"))
    if not isinstance(other, Param) or len(draft.shape(other)) != 2:
        return False
    weight = draft.model.tensor(other.name).detach().T.contiguous()
    draft.emit(node, node.name, aten.linear.default,
               {"input": node["self"], "weight": draft.parameter(f"{node.name}.columns", nn.Parameter(weight)),
                "bias": None}, node.shape)
    return True


def _division(draft: Draft, node: Node) -> bool:
    """By a parameter a product with its inverse; by what the model computes a quotient."""
    if isinstance(node["other"], Ref) and isinstance(node["self"], Ref | Param):
        draft.emit(node, node.name, quotient, {"first": node["self"], "second": node["other"]}, node.shape)
        return True
    if not isinstance(node["other"], Param):
        return False
    inverse = draft.parameter(f"{node.name}.inverse", draft.model.tensor(node["other"].name).detach().reciprocal())
    draft.emit(node, node.name, aten.mul.Tensor, {"self": node["self"], "other": inverse}, node.shape)
    return True


def _number_first(draft: Draft, node: Node) -> bool:
    """2 · x and W · x as x · 2 and x · W; x · (x > 0) as a function of x."""
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


def _bilinear(draft: Draft, node: Node) -> bool:
    """Along each axis a product with the matrix that interpolation is."""
    source, target = draft.shape(node["input"]), node.shape
    if target is None or None in source[2:] or None in target[2:]:
        return False
    factors = node["scale_factors"] or [None, None]
    matrices = []
    for size, goal, factor in zip(source[2:], target[2:], factors, strict=True):
        assert size is not None, "checked above"
        unit = torch.eye(size).unsqueeze(0)
        goal = goal if factor is None else None
        matrices.append(F.interpolate(unit, goal, factor, mode="linear", align_corners=node["align_corners"])[0].T)
    n, c, height, _ = source
    _, _, new_height, new_width = target

    def product(value: Any, name: str, matrix: torch.Tensor, shape: Shape) -> Ref:
        weight = draft.parameter(f"{name}.matrix", nn.Parameter(matrix.contiguous()))
        return draft.emit(node, name, aten.linear.default, {"input": value, "weight": weight, "bias": None}, shape)

    def turn(value: Any, name: str, shape: Shape) -> Ref:
        return draft.emit(node, name, aten.transpose.int, {"self": value, "dim0": 2, "dim1": 3}, shape)

    wide = product(node["input"], f"{node.name}.wide", matrices[1], (n, c, height, new_width))
    turned = turn(wide, f"{node.name}.turned", (n, c, new_width, height))
    tall = product(turned, f"{node.name}.tall", matrices[0], (n, c, new_width, new_height))
    turn(tall, node.name, target)
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
    """The largest without their positions, where nobody reads these."""
    readers = draft.readers[node.name]
    if not readers or any(reader["argument1"] != 0 for reader in readers):
        return False
    name, shape = f"{readers[0].name}.values", readers[0].shape
    if node.target is aten.max.dim:
        arguments = {"self": node["self"], "dim": [node["dim"]], "keepdim": node["keepdim"]}
        draft.emit(node, name, aten.amax.default, arguments, shape)
    else:
        draft.emit(node, name, adaptive_max_pool, {"x": node["self"], "output_size": node["output_size"]}, shape)
    draft.renamed.update({reader.name: name for reader in readers})
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
    return node.name in draft.renamed


def _expand(draft: Draft, node: Node) -> bool:
    """A parameter repeated for every image of the batch is the parameter, wherever one image's worth will do."""
    shape, target = draft.shape(node["self"]), node.shape or ()
    if shape == target:
        draft.renamed[node.name] = node["self"].name
        return True
    over_batch = isinstance(node["self"], Param) and len(shape) == len(target) and shape[1:] == target[1:]
    if not (over_batch and target[:1] == (None,)):
        return False
    if not all(reader.target in (aten.cat.default, aten.add.Tensor) for reader in draft.readers[node.name]):
        return False
    draft.constants[node.name] = node["self"]
    return True


def _cat(draft: Draft, node: Node) -> bool:
    if not any(isinstance(item, Ref) and item.name in draft.constants for item in node["tensors"]):
        return False
    draft.emit(node, node.name, join, {"tensors": node["tensors"], "dim": node["dim"]}, node.shape)
    return True


_RULES: dict[Any, Rule] = {  # by the call that is taken apart
    aten.conv_transpose1d.default: _transposed_conv, aten.conv_transpose2d.input: _transposed_conv,
    aten.conv_transpose3d.input: _transposed_conv,
    aten.scaled_dot_product_attention.default: _attention, aten.softmax.int: _softmax,
    aten.matmul.default: _matmul_with_parameter, aten.mm.default: _matmul_with_parameter,
    aten.div.Tensor: _division, aten.mul.Tensor: _number_first,
    aten.addcmul.default: _added_product, aten.instance_norm.default: _instance_norm,
    aten.log_softmax.int: _turned, aten.upsample_bilinear2d.vec: _bilinear,
    aten.max_pool1d.default: _pool_of_one_axis, aten.avg_pool1d.default: _pool_of_one_axis,
    aten.adaptive_avg_pool1d.default: _pool_of_one_axis,
    aten.max.dim: _only_values, aten.adaptive_max_pool2d.default: _only_values,
    aten.adaptive_max_pool3d.default: _only_values,
    aten.sum.dim_IntList: _sum, aten.glu.default: _gated,
    aten.stack.default: _stack, aten.unbind.int: _unbind, operator.getitem: _taken_over,
    aten.select.int: _taken_over, aten.zeros.default: zero_state,
    aten.lstm_cell.default: lstm_cell, aten.gru_cell.default: gru_cell, aten.lstm.input: lstm, aten.gru.input: gru,
    aten.expand.default: _expand, aten.cat.default: _cat,
    aten.where.self: chosen, aten.where.Scalar: chosen, aten.where.ScalarSelf: chosen, aten.where.ScalarOther: chosen,
    aten.masked_fill.Scalar: masked, aten.to.dtype: as_number, aten.threshold.default: threshold,
}

TAKEN_APART = frozenset(_RULES)
"""The calls that folding may take apart."""

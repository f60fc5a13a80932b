"""Softmax and attention as the program knows them: a mask inside, over the last axis."""

import math
from typing import Any

import torch

from fewbits.fold.draft import Draft
from fewbits.fold.masks import both, unmasked
from fewbits.graph.functions import masked_softmax
from fewbits.graph.graph import Node, Param, Ref

aten = torch.ops.aten


def attention(draft: Draft, node: Node) -> bool:
    """softmax(q·kᵀ·scale + mask)·v, its scale inside the softmax (Vaswani et al. 2017, eq. 1)."""
    query, key, value = node["query"], node["key"], node["value"]
    q = draft.shape(query)
    width, length, span = q[-1], q[-2], draft.shape(key)[-2]
    if node["dropout_p"] or width is None or length is None or span is None:
        return False
    if node.arguments.get("enable_gqa"):
        heads = q[1] or 0
        key, value = (_for_all_heads(draft, node, item, heads) for item in (key, value))
    k = draft.shape(key)
    factor = 1 / math.sqrt(width) if node.arguments.get("scale") is None else float(node["scale"])
    swapped = draft.emit(node, f"{node.name}.keys", aten.transpose.int, {"self": key, "dim0": -2, "dim1": -1},
                         (*k[:-2], k[-1], k[-2]))
    shape = (*q[:-1], span)
    scores = draft.emit(node, f"{node.name}.scores", aten.matmul.default, {"self": query, "other": swapped}, shape)
    seen: Any = None
    empty, low = "zero", 0.0
    if node["is_causal"]:
        seen = draft.parameter(f"{node.name}.mask", torch.ones(length, span, dtype=torch.bool).tril())
    if (mask := node["attn_mask"]) is not None:
        if draft.dtype(mask) == "bool":
            seen = both(draft, node, seen, mask)
        else:
            found = unmasked(draft, node, mask)
            seen, empty, low = both(draft, node, seen, found.seen), found.empty, found.low
            scores = _biased(draft, node, scores, found.value, factor)
    weights = draft.emit(node, f"{node.name}.weights", masked_softmax,
                         {"x": scores, "mask": seen, "factor": factor, "empty": empty, "low": low}, shape)
    draft.emit(node, node.name, aten.matmul.default, {"self": weights, "other": value}, node.shape)
    return True


def _biased(draft: Draft, node: Node, scores: Ref, bias: Any, factor: float) -> Ref:
    """Scores and a bias over the factor that multiplies both."""
    if isinstance(bias, float):
        return scores  # 0, or the same for every place
    if isinstance(bias, Param):
        bias = draft.parameter(f"{node.name}.bias", draft.model.tensor(bias.name).detach() / factor)
    elif factor != 1:
        bias = draft.emit(node, f"{node.name}.bias", aten.mul.Tensor, {"self": bias, "other": 1 / factor},
                          draft.shape(bias))
    return draft.emit(node, f"{node.name}.biased", aten.add.Tensor, {"self": scores, "other": bias, "alpha": 1},
                      draft.shape(scores))


def _for_all_heads(draft: Draft, node: Node, item: Any, heads: int) -> Any:
    """Keys or values [N, groups, L, W], each for as many heads as share it."""
    batch, groups, length, width = draft.shape(item)
    if groups == heads or groups is None or not isinstance(item, Ref):
        return item
    name, count = draft.fresh(f"{node.name}.groups"), heads // groups
    apart = draft.emit(node, name, aten.unsqueeze.default, {"self": item, "dim": 2}, (batch, groups, 1, length, width))
    wide = draft.emit(node, f"{name}.each", aten.expand.default,
                      {"self": apart, "size": [-1, -1, count, -1, -1], "implicit": False},
                      (batch, groups, count, length, width))
    return draft.emit(node, f"{name}.heads", aten.reshape.default,
                      {"self": wide, "shape": [-1, heads, length, width]}, (batch, heads, length, width))


def turned(draft: Draft, node: Node) -> bool:
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


def softmax(draft: Draft, node: Node) -> bool:
    """A mask that stands in its scores goes inside; moves of whole rows between the two come behind the softmax."""
    if turned(draft, node):
        return True
    value, moves = node["self"], []
    while (move := _move_of_rows(draft, value)) is not None:
        moves.append(move)
        value = move["self"]
    found = unmasked(draft, node, value)
    if found.seen is None or draft.shape(found.value) != draft.shape(value):
        return False
    name = draft.fresh(f"{node.name}.rows") if moves else node.name
    result = draft.emit(node, name, masked_softmax,
                        {"x": found.value, "mask": found.seen, "factor": 1.0, "empty": found.empty, "low": found.low},
                        draft.shape(value))
    for place, move in enumerate(reversed(moves)):
        name = node.name if place == len(moves) - 1 else draft.fresh(f"{node.name}.{move.op}")
        result = draft.emit(node, name, move.target, dict(move.arguments) | {"self": result}, move.shape)
    return True


def _move_of_rows(draft: Draft, value: Any) -> Node | None:
    """What made a value, where that moved whole rows about."""
    node = draft.maker(value)
    if node is None or not isinstance(node.arguments.get("self"), Ref):
        return None
    before, after = draft.shape(node["self"]), node.shape or ()
    if not before or not after or before[-1] != after[-1] or before[-1] is None:
        return None
    rank = len(before)
    match node.target:
        case aten.reshape.default | aten.unsqueeze.default | aten.squeeze.dim | aten.flatten.using_ints:
            return node
        case aten.transpose.int if rank - 1 not in (node["dim0"] % rank, node["dim1"] % rank):
            return node
        case aten.permute.default if node["dims"][-1] % rank == rank - 1:
            return node
        case _:
            return None

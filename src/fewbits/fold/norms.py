"""Norms written out by hand, as the one operator they are: RMS norm (Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4)
and division by a length, with the gains behind them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fewbits.fold.draft import Draft
from fewbits.graph.graph import Node, Param, Ref, Shape

aten = torch.ops.aten

_TINY = 1e-24  # beside the squares of a length, where nothing is added to them


def divided(draft: Draft, node: Node) -> bool:
    """x / √(mean(x²) + ε), x / max(|x|, ε) and their like."""
    found = _length(draft, node["other"], node["self"]) if isinstance(node["self"], Ref) else None
    return found is not None and _normed(draft, node, node["self"], *found)


def multiplied(draft: Draft, node: Node) -> bool:
    """x · rsqrt(mean(x²) + ε), and a norm times the gains of its channels, in either order."""
    for x, other in ((node["self"], node["other"]), (node["other"], node["self"])):
        if isinstance(x, Ref) and isinstance(other, Param) and _with_gain(draft, node, x, other):
            return True
        root = draft.maker(other)
        if not isinstance(x, Ref) or root is None:
            continue
        found = None
        if _computes(root, lambda x: x.rsqrt()):
            found = _radicand(draft, root["self"], x)
        elif _computes(root, lambda x: x.reciprocal()):
            found = _length(draft, root["self"], x)
        if found is not None and _normed(draft, node, x, *found):
            return True
    return False


Found = tuple[int, float, float]  # axis; ε beside the mean of the squares; by what the norm is multiplied


def _length(draft: Draft, value: Any, x: Ref) -> Found | None:
    """|x|, or √(mean(x²) + ε), bounded below or not."""
    node = draft.maker(value)
    least = 0.0
    while node is not None and node.target in (aten.expand.default, aten.clamp_min.default, aten.clamp.default):
        if node.target is not aten.expand.default:
            if not isinstance(node["min"], int | float) or node.arguments.get("max") is not None:
                return None
            least = max(least, float(node["min"]))
        node = draft.maker(node["self"])
    if node is None:
        return None
    found = _radicand(draft, node["self"], x) if _computes(node, lambda x: x.sqrt()) else None
    if found is None or not least:
        return found
    axis, epsilon, factor = found  # max(|x|, ε) by what it is where |x| is 0: √(mean(x²) + ε²/n) / factor
    return (axis, max(epsilon, (least * factor) ** 2), factor) if epsilon <= _TINY else None


def _radicand(draft: Draft, value: Any, x: Ref) -> Found | None:
    """mean(x²) + ε, or the sum of the squares in its place."""
    node, epsilon = draft.maker(value), 0.0
    if node is not None and node.target is aten.add.Tensor:
        epsilon_given = _number(draft, node["other"])
        if epsilon_given is None:
            return None
        epsilon, node = epsilon_given, draft.maker(node["self"])
    count = 1.0
    if node is not None and node.target is aten.mul.Tensor and isinstance(node["other"], int | float):
        count, node = float(node["other"]), draft.maker(node["self"])  # a sum, as it is taken apart
    if node is None or node.target is not aten.mean.dim or not node["keepdim"] or count <= 0:
        return None
    if len(node["dim"] or ()) != 1 or not _squares(draft, node["self"], x):
        return None
    return node["dim"][0] % len(draft.shape(x)), max(epsilon, _TINY) / count, 1 / math.sqrt(count)


def _squares(draft: Draft, value: Any, x: Ref) -> bool:
    node = draft.maker(value)
    if node is None:
        return False
    if node.target is aten.mul.Tensor:
        return node["self"] == node["other"] == x
    return _computes(node, lambda x: x * x) and node["self"] == x


_SAMPLES = torch.tensor([0.25, 4.0, 9.0, 2.0])


def _computes(node: Node, function: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether a node is that function of one number, whatever its name."""
    if node.op != "function" or next(iter(node.arguments)) != "self":
        return False
    given = dict(node.arguments) | {"self": _SAMPLES}
    return torch.allclose(node.run(given), function(_SAMPLES), rtol=1e-6)


def _number(draft: Draft, value: Any) -> float | None:
    if isinstance(value, Param) and draft.model.tensor(value.name).numel() == 1:
        return float(draft.model.tensor(value.name))
    return float(value) if isinstance(value, int | float) else None


def _normed(draft: Draft, node: Node, x: Ref, axis: int, epsilon: float, factor: float) -> bool:
    shape = draft.shape(x)
    size, last = shape[axis], len(shape) - 1
    if size is None or shape != node.shape:
        return False
    weight = None if factor == 1 else draft.parameter(f"{node.name}.gain", nn.Parameter(torch.full((size,), factor)))
    if axis == last:
        rms_norm(draft, node, node.name, x, weight, epsilon, size, shape)
        return True
    turned = list(shape)
    turned[axis], turned[last] = turned[last], turned[axis]
    back = draft.emit(node, f"{node.name}.turned", aten.transpose.int, {"self": x, "dim0": axis, "dim1": last},
                      tuple(turned))
    rows = rms_norm(draft, node, f"{node.name}.rows", back, weight, epsilon, size, tuple(turned))
    draft.emit(node, node.name, aten.transpose.int, {"self": rows, "dim0": axis, "dim1": last}, shape)
    return True


def rms_norm(draft: Draft, node: Node, name: str, x: Any, weight: Param | None, epsilon: float, size: int,
             shape: Shape) -> Ref:
    """x · gain / √(mean(x²) + ε) over the last axis."""
    return draft.emit(node, name, aten.rms_norm.default,
                      {"input": x, "normalized_shape": [size], "weight": weight, "eps": epsilon}, shape)


def _with_gain(draft: Draft, node: Node, x: Ref, gain: Param) -> bool:
    """A norm and the gains of its channels."""
    before, shape = draft.made_by(x), draft.shape(gain)
    if before is None or before.target is not aten.rms_norm.default or node.shape != before.shape:
        return False
    size = before["normalized_shape"][0]
    if len(before["normalized_shape"]) != 1 or shape[-1:] != (size,) or any(each != 1 for each in shape[:-1]):
        return False
    weight = draft.model.tensor(gain.name).detach().reshape(-1)
    if before["weight"] is not None:
        weight = weight * draft.model.tensor(before["weight"].name).detach()
    kept = gain if before["weight"] is None and len(shape) == 1 else draft.parameter(
        f"{node.name}.gain", nn.Parameter(weight.clone()))
    draft.drop(before)
    rms_norm(draft, node, node.name, before["input"], kept, before["eps"], size, before.shape or ())
    return True


def length(draft: Draft, node: Node) -> bool:
    """The length of a vector as the root of its mean square times how many numbers it has."""
    shape, target = draft.shape(node["self"]), node.shape
    dims = node["dim"]
    if node["ord"] != 2 or not dims or any(shape[axis] is None for axis in dims):
        return False
    count = math.prod(shape[axis] or 0 for axis in dims)
    squares = draft.emit(node, f"{node.name}.squares", aten.square.default, {"self": node["self"]}, shape)
    mean = draft.emit(node, f"{node.name}.mean", aten.mean.dim,
                      {"self": squares, "dim": list(dims), "keepdim": node["keepdim"], "dtype": None}, target)
    total = draft.emit(node, f"{node.name}.total", aten.mul.Tensor, {"self": mean, "other": float(count)}, target)
    draft.emit(node, node.name, aten.sqrt.default, {"self": total}, target)
    return True

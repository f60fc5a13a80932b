"""Interpolation as products with the matrices that it is, one axis after the other."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.fold.draft import Draft
from fewbits.graph.graph import Node, Ref, Shape

aten = torch.ops.aten

_MODES: dict[Any, str] = {
    aten.upsample_linear1d.vec: "linear", aten.upsample_bilinear2d.vec: "linear",
    aten.upsample_trilinear3d.vec: "linear",
    aten.upsample_bicubic2d.vec: "bicubic", aten._upsample_bilinear2d_aa.vec: "bilinear, antialiased",
    aten._upsample_bicubic2d_aa.vec: "bicubic, antialiased",
}
INTERPOLATIONS = tuple(_MODES)
"""The calls that `interpolated` takes apart."""

_NAMES = ("wide", "tall", "deep")  # of the last axis, the one before, and the one before that


def interpolated(draft: Draft, node: Node) -> bool:
    """[N, C, ...] times a matrix along each axis behind the channels, the last first."""
    source, target = draft.shape(node["input"]), node.shape
    if target is None or None in source[2:] or None in target[2:]:
        return False
    factors = node["scale_factors"] or [None] * (len(source) - 2)
    value, shape, last = node["input"], list(source), len(source) - 1
    for place, axis in enumerate(range(last, 1, -1)):
        size, goal = source[axis], target[axis]
        assert size is not None and goal is not None, "checked above"
        matrix = _matrix(_MODES[node.target], size, goal, factors[axis - 2], node["align_corners"])
        if axis != last:
            _swap(shape, axis, last)
            value = _turned(draft, node, f"{node.name}.turned{place if place > 1 else ''}", value, axis, tuple(shape))
        shape[last] = goal
        ends = axis == 2 == last
        name = node.name if ends else f"{node.name}.{_NAMES[place]}"
        weight = draft.parameter(f"{node.name}.{_NAMES[place]}.matrix", nn.Parameter(matrix.contiguous()))
        value = draft.emit(node, name, aten.linear.default, {"input": value, "weight": weight, "bias": None},
                           tuple(shape))
        if axis != last:
            _swap(shape, axis, last)
            name = node.name if axis == 2 else f"{node.name}.back{place}"
            value = _turned(draft, node, name, value, axis, tuple(shape))
    return True


def _swap(shape: list[int | None], axis: int, last: int) -> None:
    shape[axis], shape[last] = shape[last], shape[axis]


def _turned(draft: Draft, node: Node, name: str, value: Any, axis: int, shape: Shape) -> Ref:
    return draft.emit(node, name, aten.transpose.int, {"self": value, "dim0": axis, "dim1": len(shape) - 1}, shape)


def _matrix(mode: str, size: int, goal: int, factor: float | None, align: bool) -> torch.Tensor:
    """[goal, size]: what each number of the result takes of each of the input."""
    unit, wanted = torch.eye(size), goal if factor is None else None
    if mode == "linear":
        return F.interpolate(unit.unsqueeze(0), wanted, factor, mode=mode, align_corners=align)[0].T
    mode, _, antialias = mode.partition(", ")
    made = F.interpolate(unit.reshape(1, 1, size, size), None if wanted is None else (goal, size),
                         None if factor is None else (factor, 1.0), mode=mode, align_corners=align,
                         antialias=bool(antialias))  # the other axis keeps its size
    return made[0, 0]

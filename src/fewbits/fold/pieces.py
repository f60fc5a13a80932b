"""Functions written with comparisons, `torch.where(x >= 0, 1, -1)`, as one function of one number."""

from typing import Any

import torch

from fewbits.fold.draft import Draft
from fewbits.graph.functions import two_pieces
from fewbits.graph.graph import Node, Ref
from fewbits.program.functions import RELATIONS

aten = torch.ops.aten

Line = tuple[float, float]  # slope and offset

COMPARISONS = {getattr(aten, name).Scalar: name for name in RELATIONS}
"""Of what the model computes with a number, by ATen's call."""


def chosen(draft: Draft, node: Node) -> bool:
    """torch.where(condition, one, other), both straight lines of what is compared with a number."""
    return _choose(draft, node, node["condition"], node["self"], node["other"])


def masked(draft: Draft, node: Node) -> bool:
    """x.masked_fill(condition, value)."""
    return _choose(draft, node, node["mask"], node["value"], node["self"])


def gated_by_comparison(draft: Draft, node: Node) -> bool:
    """x · (x > 0), the condition first or second."""
    first, second = node["self"], node["other"]
    return _choose(draft, node, second, first, 0.0) or _choose(draft, node, first, second, 0.0)


def as_number(draft: Draft, node: Node) -> bool:
    """(x > 0).float()."""
    return node["dtype"] == torch.float32 and _choose(draft, node, node["self"], 1.0, 0.0)


def threshold(draft: Draft, node: Node) -> bool:
    """x where it is above the threshold, else a value."""
    _emit(draft, node, node["self"], "gt", node["threshold"], (1.0, 0.0), (0.0, node["value"]))
    return True


def _choose(draft: Draft, node: Node, condition: Any, one: Any, other: Any) -> bool:
    """In place of a node that gives `one` where the condition holds, else `other`."""
    compared = draft.maker(condition)
    if compared is None or compared.target not in COMPARISONS or not isinstance(compared["self"], Ref):
        return False
    x = compared["self"]
    if draft.dtype(x) != "float32":
        return False
    first, second = _line(draft, one, x), _line(draft, other, x)
    if first is None or second is None or draft.shape(x) != node.shape:
        return False
    _emit(draft, node, x, COMPARISONS[compared.target], compared["other"], first, second)
    return True


def _emit(draft: Draft, node: Node, x: Ref, relation: str, bound: float, one: Line, other: Line) -> None:
    draft.emit(node, node.name, two_pieces, {
        "x": x, "relation": relation, "bound": bound, "slope": one[0], "offset": one[1],
        "other_slope": other[0], "other_offset": other[1]}, node.shape)


def _line(draft: Draft, item: Any, x: Ref) -> Line | None:
    """A number, x itself, or what one step makes of another line of x."""
    if isinstance(item, int | float):
        return 0.0, float(item)
    if item == x:
        return 1.0, 0.0
    node = draft.maker(item)
    if node is None:
        return None
    match node.target:
        case aten.zeros_like.default:
            return 0.0, 0.0
        case aten.ones_like.default:
            return 0.0, 1.0
        case aten.full_like.default:
            return 0.0, float(node["fill_value"])
        case aten.neg.default:
            return _scaled(_line(draft, node["self"], x), -1.0)
        case aten.mul.Tensor if isinstance(node["other"], int | float):
            return _scaled(_line(draft, node["self"], x), node["other"])
        case aten.div.Tensor if isinstance(node["other"], int | float) and node["other"]:
            return _scaled(_line(draft, node["self"], x), 1.0 / node["other"])
        case _:
            return None


def _scaled(line: Line | None, factor: float) -> Line | None:
    return None if line is None else (factor * line[0], factor * line[1])

"""Attention masks taken out of the scores they stand in.

A mask hides places by numbers so low that softmax makes nothing of them. Among the scores such numbers would widen the
range of their codes; so what hides becomes a truth value beside the scores, True where a place is seen, and the scores
are what they would be without it. Masks are found as constants and as what the model computes from its inputs, behind
additions, factors, bounds and choices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fewbits.fold.draft import Draft
from fewbits.graph.graph import Node, Param, Ref
from fewbits.graph.hiding import LOW
from fewbits.program.exact_calls import EXACT_ON_FLOATS
from fewbits.program.functions import Empty

aten = torch.ops.aten

_SWALLOWS = -2.0**20
"""At most this, added to a score, leaves nothing of it in float32."""


@dataclass(frozen=True)
class Masked:
    """What softmax takes. value: the numbers without what hides (0.0 for none); seen: bool, broadcastable to them, True
    where a place is seen, None for everywhere; empty: what a row gives in which no place is seen; low: what is added to
    its scores then."""

    value: Any
    seen: Ref | Param | None = None
    empty: Empty = "scores"
    low: float = 0.0


def unmasked(draft: Draft, origin: Node, value: Any, factor: float = 1.0) -> Masked:
    """A value of the graph and what it hides. factor: by what softmax multiplies it. New nodes stand at `origin`."""
    if isinstance(value, int | float):
        if value * factor > LOW:
            return Masked(float(value))
        return Masked(0.0, draft.parameter(f"{origin.name}.seen", torch.tensor(False)), *_adding(value * factor))
    if isinstance(value, Param):
        return _constant(draft, origin, value, factor)
    key = (value.name, factor)
    if key not in draft.unmasked:
        node = draft.maker(value)
        rule = None if node is None else _RULES.get(node.target)
        found = None if node is None or rule is None else rule(draft, node, factor)
        if found is None and node is not None and node.role == "gone" and node.dtype == "float32":
            found = unmasked(draft, origin, node["self" if "self" in node.arguments else "input"], factor)
        if found is None or found.seen is None:
            found = _computed(draft, origin, value, factor) or Masked(value)
        draft.unmasked[key] = found
    return draft.unmasked[key]


def both(draft: Draft, origin: Node, first: Ref | Param | None, second: Ref | Param | None) -> Ref | Param | None:
    """Where two masks let see."""
    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, Param) and isinstance(second, Param):
        seen = draft.model.tensor(first.name).bool() & draft.model.tensor(second.name).bool()
        return draft.parameter(f"{origin.name}.seen", seen)
    if isinstance(first, Param):
        first, second = second, first
    shape = _together(draft, first, second)
    return draft.emit(origin, draft.fresh(f"{origin.name}.seen"), aten.logical_and.default,
                      {"self": first, "other": second}, shape, "bool")


def is_exact(draft: Draft, value: Any) -> bool:
    """Whether a value comes from inputs and constants by calls that are never quantized."""
    if not isinstance(value, Ref):
        return True
    node = draft.maker(value)
    if node is None:
        return value.name in draft.model.graph.inputs_by_name
    if node.dtype == "float32" and node.target not in EXACT_ON_FLOATS and node.role != "pass":
        return False
    return all(is_exact(draft, Ref(name)) for name in node.refs)


def reads_floats(draft: Draft, value: Any) -> bool:
    """Whether an exact value comes from a float input."""
    if not isinstance(value, Ref):
        return False
    node = draft.maker(value)
    if node is None:
        given = draft.model.graph.inputs_by_name.get(value.name)
        return given is not None and given.dtype == "float32"
    return any(reads_floats(draft, Ref(name)) for name in node.refs)


# ------------------------------------------------------------------------------------ what hides


def _adding(number: float) -> tuple[Empty, float]:
    """What a row gives that was hidden by adding a number, as softmax reads it."""
    if number == -torch.inf:
        return "zero", 0.0
    return ("uniform", 0.0) if number <= _SWALLOWS else ("scores", number)


def _constant(draft: Draft, origin: Node, value: Param, factor: float) -> Masked:
    tensor = draft.model.tensor(value.name).detach()
    hidden = tensor * factor <= LOW
    if tensor.dtype == torch.bool or not hidden.any():
        return Masked(value)
    rest = torch.where(hidden, 0, tensor)
    seen = draft.parameter(f"{origin.name}.seen", ~hidden)
    kept = draft.parameter(f"{origin.name}.unmasked", rest) if rest.any() else 0.0
    return Masked(kept, seen, *_adding(float(tensor[hidden].max()) * factor))


def _computed(draft: Draft, origin: Node, value: Ref, factor: float) -> Masked | None:
    """A number that the model makes of its inputs, such as (1 - keep) · -10000, or is given, where the example hides
    places: what hides is found when it runs."""
    if draft.dtype(value) != "float32" or not is_exact(draft, value):
        return None
    largest = _largest_number(draft, value)
    if largest * factor > LOW:
        return None  # too small to hide anything
    shape, limit = draft.shape(value), LOW / factor
    hidden = draft.emit(origin, draft.fresh(f"{origin.name}.hidden"), aten.le.Scalar, {"self": value, "other": limit},
                        shape, "bool")
    seen = draft.emit(origin, draft.fresh(f"{origin.name}.seen"), aten.logical_not.default, {"self": hidden}, shape,
                      "bool")
    numbers = _numbers(draft, value)
    if numbers is not None and all(number <= limit or number == 0 for number in numbers):
        return Masked(0.0, seen, *_adding(largest * factor))
    rest = draft.emit(origin, draft.fresh(f"{origin.name}.unmasked"), aten.where.ScalarSelf,
                      {"condition": hidden, "self": 0.0, "other": value}, shape)
    return Masked(rest, seen, *_adding(largest * factor))


def _largest_number(draft: Draft, value: Any) -> float:
    """Less the largest magnitude among the numbers that a value is computed with."""
    if isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float):
        return -abs(float(value))
    if isinstance(value, Param):
        tensor = draft.model.tensor(value.name)
        return -float(tensor.abs().max()) if tensor.is_floating_point() and tensor.numel() else 0.0
    node = draft.maker(value)
    if node is None:
        item = draft.model.graph.inputs_by_name.get(value.name) if isinstance(value, Ref) else None
        return 0.0 if item is None else item.hiding
    if node.dtype not in ("float32", "int64") or node.target in _SHAPED:
        return _largest_number(draft, node["self"])
    return min((_largest_number(draft, item) for item in node.arguments.values()
                if isinstance(item, Ref | Param | int | float)), default=0.0)


def _numbers(draft: Draft, value: Any) -> frozenset[float] | None:
    """All numbers that a value can be, where it is computed from truth values; None where that is not known."""
    if isinstance(value, bool | int | float):
        return frozenset((float(value),))
    if isinstance(value, Param):
        found = draft.model.tensor(value.name).unique()
        return frozenset(found.tolist()) if found.numel() <= 4 else None
    node = draft.maker(value)
    if node is None:
        item = draft.model.graph.inputs_by_name.get(value.name)
        return frozenset((0.0, 1.0)) if item is not None and item.dtype == "bool" else None
    if node.dtype == "bool":
        return frozenset((0.0, 1.0))

    def of(name: str) -> frozenset[float]:
        return _numbers(draft, node[name]) or frozenset()

    match node.target:
        case aten.to.dtype:
            found = of("self")
        case aten.neg.default:
            found = frozenset(-x for x in of("self"))
        case aten.rsub.Scalar:
            found = frozenset(node["other"] - node["alpha"] * x for x in of("self"))
        case aten.sub.Tensor:
            found = frozenset(x - node["alpha"] * y for x in of("self") for y in of("other"))
        case aten.add.Tensor:
            found = frozenset(x + node["alpha"] * y for x in of("self") for y in of("other"))
        case aten.mul.Tensor:
            found = frozenset(x * y for x in of("self") for y in of("other"))
        case aten.masked_fill.Scalar:
            found = frozenset((float(node["value"]), *of("self"))) if of("self") else frozenset()
        case aten.where.self | aten.where.ScalarSelf | aten.where.ScalarOther | aten.where.Scalar:
            found = of("self") | of("other") if of("self") and of("other") else frozenset()
        case target if target in _SHAPED:
            found = of("self")
        case _:
            found = frozenset()
    return found or None


_SHAPED = (aten.reshape.default, aten.unsqueeze.default, aten.expand.default, aten.squeeze.dim, aten.slice.Tensor,
           aten.transpose.int, aten.permute.default, aten.clone.default, aten.contiguous.default, aten.repeat.default)


# -------------------------------------------------------------------------- what it may stand behind


def _together(draft: Draft, *values: Any) -> tuple[int | None, ...]:
    """The shape that values have when they are broadcast."""
    shapes = [draft.shape(value) for value in values]
    rank = max(map(len, shapes))
    padded = [(*[1] * (rank - len(shape)), *shape) for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def _again(draft: Draft, node: Node, **changed: Any) -> Ref:
    """A node once more, of other operands."""
    return draft.emit(node, draft.fresh(f"{node.name}.unmasked"), node.target, dict(node.arguments) | changed,
                      node.shape)


def _sum(draft: Draft, node: Node, factor: float) -> Masked | None:
    if node["alpha"] != 1:
        return None
    first, second = (unmasked(draft, node, node[name], factor) for name in ("self", "other"))
    seen = both(draft, node, first.seen, second.seen)
    if seen is None:
        return None
    rest = _either(first, second)
    plain = [part.value for part in (first, second) if part.value != 0.0]
    if len(plain) == 2:
        return Masked(_again(draft, node, self=plain[0], other=plain[1]), seen, *rest)
    return Masked(plain[0] if plain else 0.0, seen, *rest)


def _difference(draft: Draft, node: Node, factor: float) -> Masked | None:
    """x − y, as x + (−y) where y is a number of the network or comes from inputs."""
    other = node["other"]
    if node["alpha"] != 1 or not is_exact(draft, other):
        return None
    if isinstance(other, Param):
        turned: Any = draft.parameter(f"{node.name}.negative", -draft.model.tensor(other.name))
    elif isinstance(other, Ref):
        turned = draft.emit(node, draft.fresh(f"{node.name}.negative"), aten.neg.default, {"self": other},
                            draft.shape(other), draft.dtype(other))
    else:
        turned = -other
    second = unmasked(draft, node, turned, factor)
    first = unmasked(draft, node, node["self"], factor)
    seen = both(draft, node, first.seen, second.seen)
    if seen is None:
        return None
    plain = [part.value for part in (first, second) if part.value != 0.0]
    if len(plain) == 2:
        added = draft.emit(node, draft.fresh(f"{node.name}.unmasked"), aten.add.Tensor,
                           {"self": plain[0], "other": plain[1], "alpha": 1}, node.shape)
        return Masked(added, seen, *_either(first, second))
    return Masked(plain[0] if plain else 0.0, seen, *_either(first, second))


def _either(*parts: Masked) -> tuple[Empty, float]:
    """Of rows that several masks hide."""
    order: tuple[Empty, ...] = ("zero", "uniform", "scores")
    hiding = [part for part in parts if part.seen is not None]
    empty: Empty = next(kind for kind in order if any(part.empty == kind for part in hiding))
    return empty, sum((part.low for part in hiding), 0.0)


def _scaled(draft: Draft, node: Node, factor: float) -> Masked | None:
    """Times or by a positive number."""
    number = _number(draft, node["other"])
    if number is None or number <= 0:
        return None
    by = number if node.target is aten.mul.Tensor else 1 / number
    first = unmasked(draft, node, node["self"], factor * by)
    if first.seen is None:
        return None
    value = 0.0 if first.value == 0.0 else _again(draft, node, self=first.value)
    return Masked(value, first.seen, first.empty, first.low)


def _number(draft: Draft, value: Any) -> float | None:
    if isinstance(value, Param) and draft.model.tensor(value.name).numel() == 1:
        return float(draft.model.tensor(value.name))
    return float(value) if isinstance(value, int | float) else None


def _filled(draft: Draft, node: Node, factor: float) -> Masked | None:
    """Numbers written over others where a condition holds."""
    number = _number(draft, node["value"])
    if number is None or number * factor > LOW:
        return None
    first = unmasked(draft, node, node["self"], factor)
    seen = both(draft, node, first.seen, _inverse(draft, node, node["mask"]))
    return Masked(first.value, seen, *_either(first, Masked(0.0, seen, _filling(number))))


def _filling(number: float) -> Empty:
    """Of what is written over the scores nothing of them is left."""
    return "zero" if number == -torch.inf else "uniform"


def _chosen(draft: Draft, node: Node, factor: float) -> Masked | None:
    """where(condition, scores, low), or the other way round."""
    for scores, other, holds in (("self", "other", True), ("other", "self", False)):
        low = _lowest(draft, node[other], factor)
        if low is None:
            continue
        first = unmasked(draft, node, node[scores], factor)
        condition = node["condition"] if holds else _inverse(draft, node, node["condition"])
        seen = both(draft, node, first.seen, condition)
        return Masked(first.value, seen, *_either(first, Masked(0.0, seen, _filling(low))))
    return None


def _lowest(draft: Draft, value: Any, factor: float) -> float | None:
    """The largest of constant numbers that hide all of them; None where they do not."""
    if isinstance(value, Param):
        tensor = draft.model.tensor(value.name)
        value = float(tensor.max()) if tensor.numel() else 0.0
    return float(value) if isinstance(value, int | float) and value * factor <= LOW else None


def _inverse(draft: Draft, node: Node, condition: Any) -> Ref | Param:
    if isinstance(condition, Param):
        return draft.parameter(f"{node.name}.seen", ~draft.model.tensor(condition.name).bool())
    return draft.emit(node, draft.fresh(f"{node.name}.seen"), aten.logical_not.default, {"self": condition},
                      draft.shape(condition), "bool")


def _bounded(draft: Draft, node: Node, factor: float) -> Masked | None:
    """A clamp that leaves what hides hidden."""
    low = node.arguments.get("min")
    if low is not None and (not isinstance(low, int | float) or low * factor > LOW):
        return None
    first = unmasked(draft, node, node["self"], factor)
    if first.seen is None or first.value == 0.0:
        return None
    return Masked(_again(draft, node, self=first.value), first.seen, first.empty, first.low)


MaskRule = Callable[[Draft, Node, float], Masked | None]

_RULES: dict[Any, MaskRule] = {
    aten.add.Tensor: _sum, aten.sub.Tensor: _difference, aten.mul.Tensor: _scaled, aten.div.Tensor: _scaled,
    aten.masked_fill.Scalar: _filled, aten.masked_fill.Tensor: _filled,
    aten.where.self: _chosen, aten.where.ScalarSelf: _chosen, aten.where.ScalarOther: _chosen,
    aten.where.Scalar: _chosen,
    aten.clamp.default: _bounded, aten.clamp_min.default: _bounded, aten.clamp_max.default: _bounded,
}

"""Loops over single steps, written in Python, as the recurrences that they are: the same cell, with the same weights,
on one entry of a sequence after the other, its states handed on."""

import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from fewbits.errors import UnrolledWarning
from fewbits.fold.draft import Draft
from fewbits.graph.graph import Graph, Node, Param, Ref

aten = torch.ops.aten

_MANY = 8
"""Uses of one weight for vectors that are taken for the steps of a loop."""
_EVERYTHING = 2**62
"""Where a slice ends that goes to the end: torch writes the largest integer."""

Run = Callable[[Draft, Node, str, Ref, int, bool], list[Ref]]
"""Emits a recurrence of a cell over a sequence, along an axis, forwards or backwards: its outputs, and each state as
the last step left it."""


@dataclass(frozen=True)
class Entry:
    """An entry of a sequence: `index` of `sequence` along `axis`."""

    sequence: Ref
    axis: int
    index: int


def rolled(draft: Draft, node: Node, run: Run) -> bool:
    """A cell that stands at the first of several steps, as one recurrence; one at a later step was made with it. False
    for a single step, and where a step reads anything but the next entry of one sequence."""
    if node.name in draft.rolled:
        return True
    steps = [node]
    while (following := _following(draft, steps[-1])) is not None:
        steps.append(following)
    entries = [_entry(draft, step["input"]) for step in steps]
    count = len(steps)
    while count > 1 and not (_in_order(draft, entries[:count]) and _only_carried(draft, steps[:count])):
        count -= 1  # a loop whose last steps do otherwise
    if count < 2:
        return False
    first, last = entries[0], entries[count - 1]
    assert first is not None and last is not None, "entries in order are known"
    backwards = last.index < first.index
    low, sequence = min(first.index, last.index), first.sequence
    shape = draft.shape(sequence)
    if count != shape[first.axis]:
        size = (*shape[:first.axis], count, *shape[first.axis + 1:])
        sequence = draft.emit(node, f"{node.name}.entries", aten.slice.Tensor,
                              {"self": sequence, "dim": first.axis, "start": low, "end": low + count, "step": 1}, size)
    outputs, *lasts = run(draft, node, f"{node.name}.steps", sequence, first.axis, backwards)
    for number, step in enumerate(steps[:count]):
        draft.rolled.add(step.name)
        index = count - 1 - number if backwards else number
        for result, at in _results(draft, step):
            if at == 0:
                draft.entries[result.name] = Entry(outputs, first.axis, index)
            if number == count - 1:
                draft.renamed[result.name] = lasts[at].name
            elif at == 0 and _read_beside(draft, result, steps[number + 1]):
                kept = draft.shape(outputs)
                draft.renamed[result.name] = draft.emit(
                    node, f"{result.name}.step", aten.select.int,
                    {"self": outputs, "dim": first.axis, "index": index},
                    (*kept[:first.axis], *kept[first.axis + 1:])).name
    return True


def restacked(draft: Draft, node: Node) -> bool:
    """All entries of a sequence, such as a recurrence's outputs, stacked again in their order, or turned round: the
    sequence."""
    entries = [_entry(draft, item) for item in node["tensors"]]
    if not (len(entries) > 1 and _in_order(draft, entries)) or (first := entries[0]) is None:
        return False
    whole, shape = first.sequence, draft.shape(first.sequence)
    if shape[first.axis] != len(entries):
        return False
    axis = node["dim"] % len(shape)
    if first.index:
        whole = draft.emit(node, draft.fresh(f"{node.name}.turned"), aten.flip.default,
                           {"self": whole, "dims": [first.axis]}, shape)
    if axis != first.axis:
        whole = draft.emit(node, draft.fresh(f"{node.name}.moved"), aten.transpose.int,
                           {"self": whole, "dim0": axis, "dim1": first.axis}, node.shape)
    draft.renamed[node.name] = whole.name
    return True


def warn_of_loops(graph: Graph) -> None:
    """An UnrolledWarning where many steps of a loop read the same weights, each of them a layer of its own."""
    loops = {name: len(readers) for name, readers in graph.param_consumers.items() if len(readers) >= _MANY
             and all(node.role == "dot" and node["weight"] == Param(name) and len(node.shape or ()) == 2
                     for node in readers)}
    if loops:
        name, count = max(loops.items(), key=lambda item: item[1])
        more = f" (and {len(loops) - 1} more)" if len(loops) > 1 else ""
        warnings.warn(UnrolledWarning(
            f"weight {name!r}{more} is read by {count} steps of a loop, each of which becomes a layer with weights of "
            "its own: write it with nn.LSTM, nn.GRU or nn.RNN, or as a plain loop of nn.LSTMCell, nn.GRUCell or "
            "nn.RNNCell over x[:, t], which become one recurrence"), stacklevel=3)


def _results(draft: Draft, step: Node) -> list[tuple[Node, int]]:
    """The values that a step gives, and of which state each is: h, c."""
    if step.target is aten.lstm_cell.default:
        return [(reader, reader["argument1"]) for reader in draft.readers[step.name]]
    return [(step, 0)]


def _following(draft: Draft, step: Node) -> Node | None:
    """The same cell, with the same weights, whose states are those that a step gives."""
    results = {at: result.name for result, at in _results(draft, step)}
    states = [Ref(results[at]) for at in range(len(results))] if set(results) == set(range(len(results))) else []
    found = [reader for reader in draft.readers.get(results.get(0, ""), ())
             if reader.target is step.target and _states(reader) == states
             and all(reader[name] == step[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))]
    return found[0] if len(found) == 1 else None


def _states(step: Node) -> list[Any]:
    return list(step["hx"]) if isinstance(step["hx"], list | tuple) else [step["hx"]]


def _only_carried(draft: Draft, steps: list[Node]) -> bool:
    """Whether a state besides the output is read by the next step alone, but at the end."""
    return not any(at and _read_beside(draft, result, following)
                   for step, following in pairwise(steps)
                   for result, at in _results(draft, step))


def _read_beside(draft: Draft, result: Node, following: Node) -> bool:
    return result.name in draft.outputs or any(reader is not following for reader in draft.readers[result.name])


def _in_order(draft: Draft, entries: list[Entry | None]) -> bool:
    """Whether they are neighbours in one sequence of rows, one after the other or the other way round."""
    first = entries[0]
    if first is None or first.axis > 1 or len(draft.shape(first.sequence)) != 3:
        return False
    second = entries[1]
    way = 0 if second is None else second.index - first.index
    return way in (1, -1) and all(
        entry == Entry(first.sequence, first.axis, first.index + way * at) for at, entry in enumerate(entries))


def _entry(draft: Draft, item: Any) -> Entry | None:
    """What a step reads, where that is an entry of a sequence that is there already."""
    nodes = draft.model.graph.by_name
    while isinstance(item, Ref) and item.name not in draft.entries:
        node = nodes.get(item.name)
        if node is None or node.role != "gone" or node.dtype != "float32":
            break
        item = node["self" if "self" in node.arguments else "input"]
    if not isinstance(item, Ref) or isinstance(item, Param):
        return None
    if item.name in draft.entries:
        return draft.entries[item.name]
    node = nodes.get(item.name)
    if node is None:
        return None
    if node.target is aten.select.int:
        source, axis, index = node["self"], node["dim"], node["index"]
    elif node.target is operator.getitem and nodes[node["argument0"].name].target is aten.unbind.int:
        whole = nodes[node["argument0"].name]
        source, axis, index = whole["self"], whole["dim"], node["argument1"]
    else:
        return None
    if not isinstance(source, Ref) or not isinstance(index, int):
        return None
    source = Ref(draft.current(_whole(draft, source)))
    shape = draft.shape(source)
    if not shape or shape[axis % len(shape)] is None or (
            draft.maker(source) is None and source.name not in draft.model.graph.inputs_by_name):
        return None
    axis %= len(shape)
    return Entry(source, axis, index % (shape[axis] or 1))


def _whole(draft: Draft, source: Ref) -> str:
    """What a slice of everything is: `x[:, 3]` slices the batch first."""
    nodes = draft.model.graph.by_name
    while (node := nodes.get(source.name)) is not None and node.target is aten.slice.Tensor and (
            node["start"], node["step"]) == (0, 1) and node["end"] >= _EVERYTHING and isinstance(node["self"], Ref):
        source = node["self"]
    return source.name

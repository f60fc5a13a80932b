"""Recurrences as one native call: the calls of a body, once for each step."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fewbits.engines.native.context import Context, Form, Forms, Step, Stored, constant, moved_by, plain
from fewbits.kernels import structs
from fewbits.kernels.repeat import Copied, repeat_struct
from fewbits.program import ops as op


def forms(known: Mapping[type[op.ProgramNode], Form]) -> Forms:
    """The form, which takes those of the nodes in a body from `known`."""

    def recurrence(context: Context, node: op.Recurrence) -> Stored | None:
        before = list(context.steps), dict(context.stored), dict(context._made)
        made = _recurrence(context, node, known)
        if made is None:  # what has been appended is taken back
            context.steps, context.stored, context._made = before
        return made

    return {op.Recurrence: recurrence}


def _recurrence(context: Context, node: op.Recurrence, known: Mapping[type[op.ProgramNode], Form]) -> Stored | None:
    axis = node.axis
    sequences = {each.name: _plainly(context, context.stored[each.sequence]) for each in node.entries}
    whole = next(iter(sequences.values()))
    turns, batch = whole.shape[axis], whole.shape[1 - axis]
    if whole.bytes == 0:
        return None
    for name, sequence in sequences.items():
        context.stored[name] = _new(context, name, (batch, *sequence.shape[2:]), sequence.dtype)
    states: dict[str, Stored] = {}
    for state in node.states:
        first = _first(context, state, batch)
        if first is None:
            return None
        states[state.name] = context.stored[state.name] = first
    outside, context.steps = context.steps, []
    for each in node.body:
        form = known.get(type(each))
        made = form(context, each) if form is not None else None
        if made is None:
            return None
        context.stored[each.name] = made
    last = _plainly(context, context.stored[node.output])
    followings = {state.name: _plainly(context, context.stored[state.following]) for state in node.states}
    body, context.steps = tuple(context.steps), outside
    held = {value.memory for value in states.values()}
    unlike = any(value.memory in held or value.dtype != states[name].dtype for name, value in followings.items())
    if not body or unlike or any(len(value.shape) < 2 for value in (last, *states.values())):
        return None
    shape = (batch, turns, *last.shape[1:]) if axis else (turns, batch, *last.shape[1:])
    y = _new(context, node.name, shape, last.dtype)
    entries = tuple(context.stored[name] for name in sequences)
    start, way = (turns - 1, -1) if node.backwards else (0, 1)

    def at_start(array: np.ndarray) -> np.ndarray:
        return array[:, start] if axis else array[start]

    def make(calls: list[structs.Call], *arrays: np.ndarray) -> tuple[structs.Call, Any]:
        *others, made, y = arrays
        rows, others = others[:len(sequences)], others[len(sequences):]
        now, others = others[:len(entries)], others[len(entries):]
        following, state = others[:len(states)], others[len(states):]
        before = [Copied(at_start(row), one, way * row.strides[axis]) for row, one in zip(rows, now, strict=True)]
        after = [Copied(made, at_start(y), 0, way * y.strides[axis]),
                 *(Copied(new, old) for new, old in zip(following, state, strict=True))]
        return repeat_struct(calls, before, after, turns)

    context.steps.append(Step(node.name, (*sequences.values(), *entries, *followings.values(), *states.values(), last),
                              y, make, body=body))
    for state in node.states:
        if state.last is not None:
            context.stored[state.last] = states[state.name]
    return y


def _plainly(context: Context, value: Stored) -> Stored:
    return context.ordered(value, plain(len(value.shape)))


def _new(context: Context, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Stored:
    return context.new(name, shape, plain(len(shape)), dtype)


def _first(context: Context, state: op.Carried, batch: int) -> Stored | None:
    """Where a state lies, holding what it is at the first step."""
    value = context.program.values[state.name]
    if state.first is not None:
        given = _plainly(context, context.stored[state.first])
        held = _new(context, state.name, given.shape, given.dtype)
        context.steps.append(Step(state.name, (given,), held, lambda a, b: (moved_by(a, b, None), None)))
        return held
    kinds = {np.dtype(np.uint8): np.uint8, np.dtype(np.int8): np.uint8, np.dtype(np.int16): np.int16}
    dtype = None if value.encoding is None else kinds.get(value.encoding.format.dtype)
    sizes = [size for size in value.shape[1:] if size is not None]
    if dtype is None or len(sizes) < len(value.shape) - 1:
        return None
    held = _new(context, state.name, (batch, *sizes), np.dtype(dtype))
    zero = constant(np.array([context.zero(state.name)], dtype), (0,))
    context.steps.append(Step(state.name, (zero,), held, lambda a, b: (moved_by(np.broadcast_to(a, b.shape), b, None),
                                                                       zero)))
    return held

"""Recurrence as ONNX: a Scan, its body's operators in their own forms with their weights in the body."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from fewbits.program import ops as op
from fewbits.program.node import ProgramNode
from fewbits.program.ops.recurrence import Carried
from fewbits.writers.onnx.builder import OnnxBuilder
from fewbits.writers.onnx.steps import Emit, FormTable, OnnxForms


def forms(known: Mapping[type[ProgramNode], OnnxForms]) -> FormTable:
    """The form, which takes those of the nodes in a body from `known`."""

    def emit(form: Callable[[OnnxForms], Emit], real: bool, b: OnnxBuilder, node: op.Recurrence) -> None:
        def body() -> None:
            for each in node.body:
                form(known[type(each)])(b, each)
            b.node("Identity", [node.output], stacked)

        stacked = b.name(node.output, "stacked")
        firsts = [state.first or _zeros(b, node, state, real) for state in node.states]
        lasts = [state.last or b.name(state.name, "unread") for state in node.states]
        given = [(each.name, each.name) for each in (*node.states, *node.entries)]
        made = [*((state.following, state.following) for state in node.states), (stacked, node.output)]
        graph = b.body(node.name, given, made, body, real)
        count, direction = len(node.entries), int(node.backwards)
        b.several("Scan", [*firsts, *(each.sequence for each in node.entries)], [*lasts, node.name], body=graph,
                  num_scan_inputs=count, scan_input_axes=[node.axis] * count,
                  scan_input_directions=[direction] * count, scan_output_axes=[node.axis],
                  scan_output_directions=[direction])

    return {op.Recurrence: OnnxForms(partial(emit, lambda form: form.integer, False),
                                 partial(emit, lambda form: form.qdq, False),
                                 partial(emit, lambda form: form.twin, True))}


def _zeros(b: OnnxBuilder, node: op.Recurrence, state: Carried, real: bool) -> str:
    """The number 0, as large as a state of the batch at hand."""
    value, sequence = b.program.values[state.name], node.entries[0].sequence
    dtype = np.dtype(value.dtype if value.encoding is None else np.float32 if real else value.encoding.format.dtype)
    zero = 0 if value.encoding is None or real else int(value.encoding.zero_point)
    batch = b.node("Shape", [sequence], b.name(state.name, "batch"), start=1 - node.axis, end=2 - node.axis)
    sizes = b.constant(f"{state.name}.sizes", np.array(value.shape[1:], np.int64))
    whole = b.node("Concat", [batch, sizes], b.name(state.name, "shape"), axis=0)
    number = b.constant(f"{state.name}.zero", np.array(zero, dtype))
    return b.node("Expand", [number, whole], b.name(state.name, "zeros"))

"""Recurrences: the body's nodes, what they are given at each step, and what is left behind."""

from collections.abc import Callable

from fewbits.errors import LoweringError
from fewbits.graph.graph import Body, Node, Ref
from fewbits.lower.context import Context, Rules
from fewbits.lower.emit import nothing
from fewbits.lower.inputs import quantized
from fewbits.lower.islands import real
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Int
from fewbits.program import ops as op
from fewbits.program.value import Value


def recurrence(context: Context, node: Node, body: Body, lower: Callable[[Node], None]) -> None:
    """lower: puts a node of the graph into the program, as that of a body where the context says so."""
    firsts = {state.name: _first(context, state) for state in body.states}
    outside, context.outside, context.nodes = context.nodes, context.nodes, []
    for each in body.nodes:
        lower(each)
    made, context.nodes, context.outside = context.nodes, outside, None
    readers = {reader["argument1"]: reader for reader in context.simulation.model.graph.consumers[node.name]}
    states, lists = [], [node.name]
    for number, state in enumerate(body.states, 1):
        following = context.names[state["following"]]
        last = readers[number].name if number in readers else None
        states.append(op.Carried(state.name, following, firsts[state.name], last))
        lists.append(last or "")
        if last is not None:
            context.values[last] = context.values[state.name]
    entries = tuple(op.Entry(entry.name, context.names[entry["sequence"].name]) for entry in body.entries)
    output = context.names[body.output]
    whole, value = context.values[entries[0].sequence], context.values[output]
    axis = node["axis"]
    shape = list(value.shape)
    shape.insert(axis, whole.shape[axis])
    context.lists[node.name] = lists
    context.emit(op.Recurrence(node.name, entries, tuple(states), tuple(made), output, axis, node["backwards"]),
                 tuple(shape), value.encoding, value.dtype)


def _first(context: Context, state: Node) -> str | None:
    """The value outside that a state begins with, brought to the state's encoding; None where it is 0."""
    if not isinstance(state["first"], Ref):
        return None
    encoding, source = _encoding(context, state), context.names[state["first"].name]
    value, name = context.values[source], f"{state.name}.first"
    if encoding is None:
        return real(context, state["first"])
    if value.encoding is None:
        return quantized(context, state["following"], source, name, value.shape)
    return context.emit(op.Requantize(name, source, encoding.format.low, encoding.format.high), value.shape, encoding)


def _encoding(context: Context, state: Node) -> Encoding | None:
    """That of what the state becomes, from which it comes; None where the recipe leaves that in float."""
    simulation, site = context.simulation, str(state["following"])
    if site not in simulation.plan.sites:
        return None
    quantizer = simulation.quantizer(site)
    if not isinstance(quantizer.format, Int):
        raise LoweringError(f"{site!r} is carried from step to step and has {quantizer.format}: use an integer "
                            "format there")
    return context.stored(quantizer.encoding)


def step(context: Context, node: Node) -> None:
    """The entry of a sequence, under its encoding."""
    source = context.values[context.names[node["sequence"].name]]
    assert node.shape is not None, "a step is one tensor"
    context.values[node.name] = Value(node.shape, source.encoding, source.dtype)
    context.names[node.name] = node.name


def state(context: Context, node: Node) -> None:
    assert node.shape is not None, "a state is one tensor"
    context.values[node.name] = Value(node.shape, _encoding(context, node))
    context.names[node.name] = node.name


RULES: Rules = {
    "recurrence": nothing, "step": step, "state": state,
}

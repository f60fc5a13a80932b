"""Which values of a graph are no quantization matter: token numbers, positions and masks.

Integers and truth values are; and float32 that is computed from them alone, or from inputs on the way to them, by calls
that every engine computes to the same bits. They are carried as what they are, up to where other operators read them.
"""

from dataclasses import replace

import torch

from fewbits.graph.functions import entered
from fewbits.graph.graph import Graph, Node, Ref
from fewbits.graph.model import Model
from fewbits.graph.operators import operator_of
from fewbits.program.exact_calls import EXACT_ON_FLOATS

aten = torch.ops.aten

_CHOICES = (aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar,
            aten.masked_fill.Scalar)


def exact_names(graph: Graph) -> frozenset[str]:
    """Names of the nodes whose results are carried as they are."""
    unmixed: dict[str, bool] = {item.name: item.dtype != "float32" for item in graph.inputs}
    """Values that come from inputs and constants by exact calls; whether from integers and truth values alone."""
    for node in graph.nodes:
        if node.role == "size":
            continue
        if node.dtype != "float32":
            unmixed[node.name] = True
        elif node.refs and (node.target in EXACT_ON_FLOATS or node.role == "pass") and all(
                name in unmixed or _is_size(graph, name) for name in node.refs):
            unmixed[node.name] = all(unmixed.get(name, True) for name in node.refs)
    exact: set[str] = set()
    for node in reversed(graph.nodes):
        if node.name not in unmixed:
            continue
        readers = graph.consumers[node.name]
        led = readers and node.name not in graph.outputs and all(reader.name in exact for reader in readers)
        if unmixed[node.name] or node.target in _CHOICES or led:
            exact.add(node.name)
    return frozenset(exact)


def _is_size(graph: Graph, name: str) -> bool:
    node = graph.by_name.get(name)
    return node is not None and node.role == "size"


def with_entries(model: Model) -> list[Node]:
    """The nodes, with one between each float32 value that is carried as it is and the operators that are quantized:
    there it becomes codes."""
    graph = model.graph
    exact = exact_names(graph)
    entries: dict[str, str] = {}
    made: list[Node] = []

    def enter(name: str, module: str, source: str, shape: tuple[int | None, ...] | None) -> None:
        readers = graph.consumers[name]
        if all(reader.name in exact or reader.role == "size" for reader in readers):
            return
        entries[name] = f"{name}.entered"
        made.append(Node(entries[name], entered, operator_of(entered), {"x": Ref(name)}, 1, module, source, shape))

    def redirected(item: object) -> object:
        return Ref(entries[item.name]) if isinstance(item, Ref) and item.name in entries else item

    for item in graph.inputs:
        if item.dtype == "float32" and any(reader.name in exact for reader in graph.consumers[item.name]):
            enter(item.name, "", "", item.shape)
    for node in graph.nodes:
        made.append(node if node.name in exact or node.role == "size" else node.changed(redirected))
        if node.name in exact and node.dtype == "float32":
            enter(node.name, node.module, node.source, node.shape)
    return made


def with_casts(model: Model) -> list[Node]:
    """The nodes, with integers and truth values made float32 in front of operators that compute with them, as PyTorch
    makes them there; and row numbers made int64."""
    made: list[Node] = []
    exact = exact_names(model.graph)
    types = {item.name: item.dtype for item in model.graph.inputs} | {
        node.name: node.dtype for node in model.graph.nodes}
    for node in model.graph.nodes:
        if node.name in exact:
            made.append(node)
            continue
        wanted = "int64" if node.op == "embedding" else "float32"
        arguments = dict(node.arguments)
        for name in _OPERANDS.get(node.op, ()) if node.dtype == "float32" else ():
            value = arguments.get(name)
            if not isinstance(value, Ref) or types[value.name] == wanted:
                continue
            cast = f"{node.name}.{name}.cast"
            made.append(Node(cast, aten.to.dtype, operator_of(aten.to.dtype), {
                "self": value, "dtype": getattr(torch, wanted), "non_blocking": False, "copy": False,
                "memory_format": None}, 5, node.module, node.source, _shape(model, value.name), wanted))
            arguments[name] = Ref(cast)
        made.append(replace(node, arguments=arguments))
    return made


def _shape(model: Model, name: str) -> tuple[int | None, ...] | None:
    made = model.graph.by_name.get(name) or model.graph.inputs_by_name[name]
    return made.shape


_OPERANDS = {"add": ("self", "other"), "sub": ("self", "other"), "mul": ("self", "other"), "div": ("self", "other"),
             "quotient": ("first", "second"), "larger": ("self", "other"), "matmul": ("self", "other"),
             "function": ("self", "x"), "embedding": ("indices",), "linear": ("input",), "mean": ("self",),
             "choose": ("self", "other")}

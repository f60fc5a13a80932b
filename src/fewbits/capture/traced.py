"""From what a tracer wrote down to a `Model`: the graph, by the user's names, and its tensors."""

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.fx import Graph as FxGraph
from torch.fx import Node as FxNode
from torch.utils import _pytree as pytree

from fewbits.capture.lines import user_line
from fewbits.capture.synonyms import Tensors, out_of_place, plain_call
from fewbits.errors import CaptureError
from fewbits.graph.graph import Graph, Input, Node, Param, Ref, Shape, Style
from fewbits.graph.model import Model
from fewbits.graph.operators import operator_of
from fewbits.options import options_checked

aten = torch.ops.aten

_ADDITIONS = (aten.add.Tensor,)
_SCATTERS: dict[Any, Any] = {
    aten.slice.Tensor: aten.slice_scatter.default, aten.select.int: aten.select_scatter.default}
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"


@dataclass(frozen=True, eq=False)
class Traced:
    """Calls of operators, and what the placeholders among them are.

    graph: placeholders, calls and an output; placeholders: the name in `state` of those that are tensors of the
    network, "" for its inputs, and not there for what is no tensor; state: parameters (nn.Parameter), buffers and
    constants, tied ones one object; kept: buffers that stay though nothing reads them; results: shape and type of what
    nodes make, where it is a tensor; structure: what the network returns, leaves numbered in the order of the output.
    """

    graph: FxGraph
    placeholders: Mapping[str, str]
    state: Mapping[str, torch.Tensor]
    kept: Collection[str]
    results: Mapping[FxNode, tuple[Shape, torch.dtype]]
    structure: Any


@options_checked
def read_traced(traced: Traced, style: Style) -> Model:
    """The model. style: how it is called, as `Graph.style`. Raises CaptureError for what a graph of tensors cannot
    hold."""
    return _Reader(traced, style).model()


def plain(structure: Any) -> Any:
    """What a model returns as plain dicts, lists and tuples. Raises CaptureError for other containers."""
    if isinstance(structure, Mapping):
        return {str(key): plain(item) for key, item in structure.items()}
    if type(structure) in (list, tuple):
        return type(structure)(plain(item) for item in structure)
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):  # a named tuple
        return tuple(plain(item) for item in structure)
    if isinstance(structure, str | torch.Tensor) or structure is None:
        return structure
    raise CaptureError(f"the model returns a {type(structure).__name__}: return tensors in dicts, lists or tuples")


class _Reader:
    """Turns one exported program into a `Model`."""

    def __init__(self, traced: Traced, style: Style):
        self.traced = traced
        self.style: Style = style
        self.names: set[str] = set()
        self.leaves: dict[FxNode, Ref | Param] = {}   # what each traced node is called here
        self.tensors: dict[str, tuple[Shape, torch.dtype]] = {}  # of values, by name
        self.state = dict(traced.state)

    def model(self) -> Model:
        inputs, nodes = [], []
        output: FxNode | None = None
        for fx in self.traced.graph.nodes:
            if fx.op == "placeholder":
                if fx.target not in self.traced.placeholders:
                    continue
                if tensor := self.traced.placeholders[str(fx.target)]:
                    self.leaves[fx] = Param(tensor)
                else:
                    inputs.append(self._input(fx))
            elif fx.op == "get_attr" and not fx.users:
                continue
            elif fx.op == "call_function":
                writes = out_of_place(fx.target) is not None
                if (not fx.users and not writes) or self._only_keeps(fx):  # the rest are assertions on sizes
                    continue
                nodes.append(self._node(fx))
                if writes:
                    nodes += self._write(fx, nodes[-1])
            elif fx.op == "output":
                output = fx
            else:
                raise CaptureError(f"the exported graph holds a {fx.op} node {fx.name!r}, which cannot be read "
                                   "(a nested graph, such as torch.cond, has no integer form)")
        assert output is not None, "every traced graph ends in an output"
        graph = Graph(tuple(inputs), tuple(nodes), self._structure(output), self.style)
        used = {name for node in nodes for name in node.params}
        return Model(graph, {name: tensor for name, tensor in self.state.items()
                             if name in used or isinstance(tensor, nn.Parameter) or name in self.traced.kept})

    def _only_keeps(self, fx: FxNode) -> bool:
        """Whether a call does nothing but keep a buffer's new value for the next run, as counters do.

        Raises CaptureError where what was kept is read: a program remembers nothing between runs.
        """
        written = fx.args[0] if fx.args and fx.target is aten.copy_.default else None
        if not isinstance(written, FxNode) or written.op != "placeholder" or fx.users:
            return False
        leaf = self.traced.placeholders.get(str(written.target))
        kept = fx.args[1]
        read = len(written.users) > 2 or (isinstance(kept, FxNode) and len(kept.users) > 1)
        if leaf and read:  # by others than what makes the new value, and this call
            raise CaptureError(f"the model changes its buffer {leaf!r} when it runs{_at(fx)} and reads it: a quantized "
                               "model remembers nothing between runs, so give the state as an input and return it")
        return bool(leaf)

    def _input(self, fx: FxNode) -> Input:
        if fx not in self.traced.results:
            raise CaptureError(f"input {fx.target!r} is no tensor")
        shape, dtype = self.traced.results[fx]
        name = str(fx.target)  # its name may be another, where it is a word of Python's
        self.names.add(name)
        self.leaves[fx] = Ref(name)
        self.tensors[name] = (shape, dtype)
        return Input(name, shape, str(dtype).removeprefix("torch."))

    def _node(self, fx: FxNode) -> Node:
        module, source = _module(fx), _source(fx)
        name = self._name(fx, module[0] if module else "", _is_leaf(module))
        target: Any = out_of_place(fx.target) or fx.target
        arguments = self._arguments(fx, target)
        target, arguments = plain_call(target, arguments, self._known(arguments))
        shape, dtype = self.traced.results.get(fx, (None, torch.float32))
        if target in _ADDITIONS and isinstance(arguments["other"], int | float) and dtype.is_floating_point:
            constant = f"{name}.constant"
            self.state[constant] = torch.tensor(float(arguments["other"]))
            arguments["other"] = Param(constant)
        node = Node(name, target, operator_of(target), arguments, _positional(target, arguments),
                    module[0] if module else "", source, shape, str(dtype).removeprefix("torch."))
        self.leaves[fx] = Ref(name)
        self.tensors[name] = (shape or (), dtype)
        return node

    def _known(self, arguments: dict[str, Any]) -> Tensors:
        """Shapes and types of the tensors among some arguments."""
        shapes: dict[str, Shape] = {}
        dtypes: dict[str, torch.dtype] = {}
        for name, value in arguments.items():
            if isinstance(value, Ref) and value.name in self.tensors:
                shapes[name], dtypes[name] = self.tensors[value.name]
            elif isinstance(value, Param):
                tensor = self.state[value.name]
                shapes[name], dtypes[name] = tuple(tensor.shape), tensor.dtype
        return Tensors(shapes, dtypes)

    def _write(self, fx: FxNode, node: Node) -> list[Node]:
        """After an in-place call the tensor it wrote into is its result. Where that was a part of another tensor, this
        one becomes what it was with the part replaced; nothing else may share its memory."""
        chain = [fx.args[0]]
        while isinstance(chain[-1], FxNode) and _is_view(chain[-1]):
            chain.append(chain[-1].args[0])
        base = chain[-1]
        assert isinstance(base, FxNode), "an in-place call writes into a tensor"
        own = self.leaves[base]
        if isinstance(own, Param) and self.traced.state[own.name].requires_grad:
            raise CaptureError(f"{node.source or node.name} changes the weight {own.name!r} when the model runs: a "
                               "quantized model has weights that stay as they are")
        others = [view for view in _sharing_memory(base) if view not in chain and view is not fx]
        if any(user > fx for view in others for user in view.users):
            raise CaptureError(f"{node.source or node.name} writes into a tensor in place whose memory is read again "
                               "under another name: use the call without the trailing underscore, or torch.cat")
        made, new = [], Ref(node.name)
        self.leaves[chain[0]] = new  # type: ignore[index]
        for view, parent in pairwise(chain):
            assert isinstance(view, FxNode) and isinstance(parent, FxNode), "views are of tensors"
            back = self._replaced(view, parent, node, new)
            if isinstance(back, Node):
                made.append(back)
                new = Ref(back.name)
            self.leaves[parent] = new
        return made

    def _replaced(self, view: FxNode, parent: FxNode, node: Node, new: Ref) -> Node | None:
        """The node that puts a new part in the place of a view into what it is a view of; None where it is all of
        that."""
        shape, dtype = self.traced.results[parent]
        if self.traced.results[view][0] == shape and view.target not in (aten.transpose.int, aten.permute.default):
            return None
        given = self._arguments(view, view.target)
        scatter = _SCATTERS.get(view.target)
        if scatter is None:
            kind = str(view.target).removeprefix("aten.").split(".")[0]
            raise CaptureError(f"{node.source or node.name} writes into a tensor in place, through {kind}, which "
                               "cannot be followed: build the result with torch.cat or torch.where")
        arguments = {"self": self.leaves[parent], "src": new} | {
            name: value for name, value in given.items() if name != "self"}
        name = self._free(f"{node.name}.into")
        made = Node(name, scatter, operator_of(scatter), arguments, _positional(scatter, arguments), node.module,
                    node.source, shape, str(dtype).removeprefix("torch."))
        self.tensors[name] = (shape, dtype)
        return made

    def _arguments(self, fx: FxNode, target: Any) -> dict[str, Any]:
        def leaf(item: Any) -> Any:
            return self.leaves[item] if isinstance(item, FxNode) else item

        args = pytree.tree_map(leaf, list(fx.args), is_leaf=lambda x: isinstance(x, FxNode))
        kwargs = pytree.tree_map(leaf, dict(fx.kwargs), is_leaf=lambda x: isinstance(x, FxNode))
        schema = getattr(target, "_schema", None)
        if schema is None:  # a Python operator on sizes
            return {f"argument{i}": value for i, value in enumerate(args)}
        bound = {}
        for i, argument in enumerate(schema.arguments):
            if i < len(args):
                bound[argument.name] = args[i]
            elif argument.name in kwargs:
                bound[argument.name] = kwargs[argument.name]
            elif argument.has_default_value():
                bound[argument.name] = argument.default_value
        return bound

    def _name(self, fx: FxNode, path: str, is_leaf: bool) -> str:
        """The module's path for a leaf module, else the path and the operator."""
        kind = getattr(fx.target, "__name__", str(fx.target)).split(".")[0].rstrip("_")
        if fx.target is operator.getitem and isinstance(fx.args[0], FxNode):
            base = f"{self.leaves[fx.args[0]].name}.{fx.args[1]}"
        elif is_leaf and path:
            base = path
        else:
            base = f"{path}.{kind}" if path else kind
        return self._free(base)

    def _free(self, base: str) -> str:
        """A name that no other value has."""
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}#{count}"
        self.names.add(name)
        return name

    def _structure(self, output: FxNode) -> Any:
        def name(item: Any) -> Any:
            if item is None:
                return None
            if not isinstance(item, FxNode):
                raise CaptureError(f"the model returns {item!r} beside its tensors: return tensors only")
            leaf = self.leaves[item]
            if isinstance(leaf, Param):
                raise CaptureError(f"the model returns its parameter {leaf.name!r}: return computed tensors only")
            return leaf.name

        names = [name(item) for item in output.args[0]]  # type: ignore[union-attr]
        return plain(pytree.tree_map(lambda leaf: names[leaf], self.traced.structure))


def _sharing_memory(fx: FxNode) -> list[FxNode]:
    """The tensor that `fx` is a view of, and all views of that one."""
    while _is_view(fx) and isinstance(fx.args[0], FxNode):
        fx = fx.args[0]
    family = [fx]
    for member in family:
        family += [user for user in member.users if _is_view(user) and user not in family]
    return family


def _is_view(fx: FxNode) -> bool:
    schema = getattr(fx.target, "_schema", None)
    return fx.target is operator.getitem or (
        schema is not None and not schema.is_mutable
        and any(argument.alias_info is not None for argument in schema.arguments))


def _module(fx: FxNode) -> tuple[str, str] | None:
    """(path, class) of the innermost module the call stands in."""
    stack = fx.meta.get("nn_module_stack") or {}
    entries = [entry for entry in stack.values() if entry[0] != _NO_MODULE]
    return (entries[-1][0], str(entries[-1][1])) if entries else None


def _positional(target: Any, arguments: Mapping[str, Any]) -> int:
    """How many of a call's arguments, which stand in the order of its schema, are given by position."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return len(arguments)
    return sum(argument.name in arguments for argument in schema.arguments if not argument.kwarg_only)


def _at(fx: FxNode) -> str:
    where = _source(fx)
    return f" at {where}" if where else ""


def _is_leaf(module: tuple[str, str] | None) -> bool:
    """Whether the innermost module is one of torch.nn's own layers."""
    return module is not None and module[1].startswith("torch.nn.modules") and ".container." not in module[1]


def _source(fx: FxNode) -> str:
    return user_line(fx.meta.get("stack_trace") or "")

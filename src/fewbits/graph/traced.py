"""From what a tracer wrote down to a `Model`: the graph, by the user's names, and its tensors."""

import operator
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Graph as FxGraph
from torch.fx import Node as FxNode
from torch.utils import _pytree as pytree

from fewbits.errors import CaptureError
from fewbits.graph.graph import Graph, Input, Node, Param, Ref, Shape, Style
from fewbits.graph.model import Model
from fewbits.graph.operators import OUT_OF_PLACE, WITHOUT_LAYOUT, operator_of
from fewbits.options import options_checked

_TORCH_FOLDER = os.path.dirname(torch.__file__)
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_ADDITIONS = (torch.ops.aten.add.Tensor,)
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


def user_line(text: str) -> str:
    """`file.py:31` of the innermost frame of a stack trace that is not torch's own, or ''."""
    frames = [(path, line) for path, line, _ in _FRAME.findall(text)
              if not path.startswith(_TORCH_FOLDER) and not path.startswith(("<", "torch/"))]
    return f"{os.path.basename(frames[-1][0])}:{frames[-1][1]}" if frames else ""


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
            elif fx.op == "call_function":
                if fx.users or fx.target in OUT_OF_PLACE:  # the rest are assertions on sizes
                    nodes.append(self._node(fx))
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

    def _input(self, fx: FxNode) -> Input:
        if fx not in self.traced.results:
            raise CaptureError(f"input {fx.target!r} is no tensor")
        shape, dtype = self.traced.results[fx]
        name = str(fx.target)  # its name may be another, where it is a word of Python's
        self.names.add(name)
        self.leaves[fx] = Ref(name)
        return Input(name, shape, str(dtype).removeprefix("torch."))

    def _node(self, fx: FxNode) -> Node:
        module, source = _module(fx), _source(fx)
        name = self._name(fx, module[0] if module else "", _is_leaf(module))
        target: Any = fx.target
        target = OUT_OF_PLACE.get(target, WITHOUT_LAYOUT.get(target, target))
        arguments, positional = self._arguments(fx, target)
        if target in _ADDITIONS and isinstance(arguments["other"], int | float):
            constant = f"{name}.constant"
            self.state[constant] = torch.tensor(float(arguments["other"]))
            arguments["other"] = Param(constant)
        shape, _ = self.traced.results.get(fx, (None, None))
        node = Node(name, target, operator_of(target), arguments, positional, module[0] if module else "", source,
                    shape)
        self.leaves[fx] = Ref(name)
        if fx.target in OUT_OF_PLACE:
            self._redirect(fx, node)
        return node

    def _redirect(self, fx: FxNode, node: Node) -> None:
        """After an in-place call the tensor it wrote into is its result; nothing else may share its memory."""
        written = fx.args[0]
        assert isinstance(written, FxNode), "an in-place call writes into a tensor"
        shared = isinstance(self.leaves[written], Param) or any(
            user > fx for view in _sharing_memory(written) if view is not written for user in view.users)
        if shared:
            raise CaptureError(f"{node.source or node.name} writes into a tensor whose memory is read again under "
                               "another name: use the call without the trailing underscore")
        self.leaves[written] = Ref(node.name)

    def _arguments(self, fx: FxNode, target: Any) -> tuple[dict[str, Any], int]:
        def leaf(item: Any) -> Any:
            return self.leaves[item] if isinstance(item, FxNode) else item

        args = pytree.tree_map(leaf, list(fx.args), is_leaf=lambda x: isinstance(x, FxNode))
        kwargs = pytree.tree_map(leaf, dict(fx.kwargs), is_leaf=lambda x: isinstance(x, FxNode))
        schema = getattr(target, "_schema", None)
        if schema is None:  # a Python operator on sizes
            return {f"argument{i}": value for i, value in enumerate(args)}, len(args)
        bound, positional = {}, 0
        for i, argument in enumerate(schema.arguments):
            if i < len(args):
                value = args[i]
            elif argument.name in kwargs:
                value = kwargs[argument.name]
            elif argument.has_default_value():
                value = argument.default_value
            else:
                continue
            bound[argument.name] = value
            positional += not argument.kwarg_only
        return bound, positional

    def _name(self, fx: FxNode, path: str, is_leaf: bool) -> str:
        """The module's path for a leaf module, else the path and the operator."""
        kind = getattr(fx.target, "__name__", str(fx.target)).split(".")[0].rstrip("_")
        if fx.target is operator.getitem and isinstance(fx.args[0], FxNode):
            base = f"{self.leaves[fx.args[0]].name}.{fx.args[1]}"
        elif is_leaf and path:
            base = path
        else:
            base = f"{path}.{kind}" if path else kind
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
        fx.target not in OUT_OF_PLACE and schema is not None
        and any(argument.alias_info is not None for argument in schema.arguments))


def _module(fx: FxNode) -> tuple[str, str] | None:
    """(path, class) of the innermost module the call stands in."""
    stack = fx.meta.get("nn_module_stack") or {}
    entries = [entry for entry in stack.values() if entry[0] != _NO_MODULE]
    return (entries[-1][0], str(entries[-1][1])) if entries else None


def _is_leaf(module: tuple[str, str] | None) -> bool:
    """Whether the innermost module is one of torch.nn's own layers."""
    return module is not None and module[1].startswith("torch.nn.modules") and ".container." not in module[1]


def _source(fx: FxNode) -> str:
    return user_line(fx.meta.get("stack_trace") or "")

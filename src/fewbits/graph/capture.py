"""From a user's module to a `Model`. The only file that knows `torch.export`."""

import copy
import operator
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind
from torch.fx import Node as FxNode
from torch.utils import _pytree as pytree

from fewbits.errors import CaptureError
from fewbits.graph.graph import Graph, Input, Node, Param, Ref, Shape
from fewbits.graph.model import Model
from fewbits.graph.operators import OUT_OF_PLACE, WITHOUT_LAYOUT
from fewbits.numerics.finite import not_finite

Example = torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]

_TORCH_FOLDER = os.path.dirname(torch.__file__)
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_ADDITIONS = (torch.ops.aten.add.Tensor,)
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"


def capture(net: nn.Module, example: Example) -> Model:
    """The graph of `net`, in inference mode, with a batch of any size.

    net: left as it is; its weights are copied once. example: what the model takes (a tensor, a tuple of
    positional tensors or a dict of named ones), first axis the batch, at least 2 of them.
    The model's outputs on the example equal those of `net`, bit for bit (of attention without its fused inference
    kernel, which rounds in another order). Raises CaptureError for a batch
    of 1, control flow that depends on data, an output that is no tensor, NaN or Inf in a weight, and
    whatever else the exporter cannot follow.
    """
    style, args, kwargs = _split(example)
    net = copy.deepcopy(net).eval()
    for name, tensor in net.state_dict().items():
        if tensor.device.type == "meta":
            raise CaptureError(f"weight {name!r} is on the meta device and has no values: load the weights first")
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise CaptureError(f"weight {name!r} is {str(tensor.dtype).removeprefix('torch.')}: quantizing starts "
                               "from float32, so call net.float() first")
        if kind := not_finite(tensor):
            raise CaptureError(f"weight {name!r} holds {kind}: load sound weights before quantizing")
    try:
        with torch.no_grad(), _without_fused_attention():
            expected = net(*args, **kwargs)
    except Exception as error:  # the user's own code, which may raise anything
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CaptureError(f"the model fails on the example: {first[0]}") from error
    exported = _export(net, args, kwargs)
    model = _Reader(exported, style).model()
    model.eval()
    for node in model.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default and node["running_mean"] is None:
            raise CaptureError(f"batch norm {node.name!r} keeps no running statistics, so it has none to stand still "
                               "on: make it with track_running_stats=True")
    with torch.no_grad():
        actual = model(*args, **kwargs)
    _check_equal(expected, actual)
    return model


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    """torch.nn's attention as it is captured: operator by operator."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _split(example: Example) -> tuple[Any, tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    match example:
        case torch.Tensor():
            style, args, kwargs = "tensor", (example,), {}
        case tuple():
            style, args, kwargs = "tuple", example, {}
        case dict():
            style, args, kwargs = "dict", (), dict(example)
        case _:
            raise CaptureError(f"the example is a {type(example).__name__}: give a tensor, a tuple of tensors "
                               "or a dict of tensors, as the model takes them")
    for tensor in (*args, *kwargs.values()):
        if not isinstance(tensor, torch.Tensor):
            raise CaptureError(f"the example holds a {type(tensor).__name__}: every input must be a tensor")
        if tensor.ndim == 0 or tensor.shape[0] < 2:
            raise CaptureError(f"the example has a batch of {tensor.shape[0] if tensor.ndim else 'no axis'}: "
                               "give at least 2, or the exporter fixes the batch size")
        if tensor.numel() == 0:
            raise CaptureError(f"the example has an axis of 0 in shape {tuple(tensor.shape)}: give real sizes")
    return style, args, kwargs


def _export(net: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> ExportedProgram:
    batch = {0: Dim.DYNAMIC}
    shapes: Any = tuple(batch for _ in args) if args else dict.fromkeys(kwargs, batch)
    try:
        with torch.no_grad():
            return export(net, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:  # the exporter raises dozens of kinds; each becomes one sentence
        raise CaptureError(_explain(error)) from error


def _explain(error: Exception) -> str:
    text = str(error)
    where = _user_line(text)
    place = f" at {where}" if where else ""
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return (f"the model's control flow depends on data{place}: branch on tensor values cannot be captured; "
                "use torch.where, or give fewbits the parts without it")
    if "specialized" in text or "constraint" in text.lower():
        return (f"the model fixes the batch size{place}: write shapes with x.shape[0] or -1 "
                "instead of a number, and give recurrent layers batch_first=True")
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"torch.export cannot follow the model{place}: {first}"


def _user_line(text: str) -> str:
    """`file.py:31` of the innermost frame that is not torch's own, or ''."""
    frames = [(path, line) for path, line, _ in _FRAME.findall(text)
              if not path.startswith(_TORCH_FOLDER) and not path.startswith(("<", "torch/"))]
    return f"{os.path.basename(frames[-1][0])}:{frames[-1][1]}" if frames else ""


def _check_equal(expected: Any, actual: Any) -> None:
    wanted, spec = pytree.tree_flatten(expected)
    got, got_spec = pytree.tree_flatten(actual)
    same = spec == got_spec and all(a is b is None or torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
    if not same:
        raise CaptureError("the captured graph gives other outputs than the model on the example: does the "
                           "model draw random numbers, or return NaN, when it is evaluated?")


class _Reader:
    """Turns one exported program into a `Model`."""

    def __init__(self, exported: ExportedProgram, style: Any):
        self.exported, self.style = exported, style
        self.names: set[str] = set()
        self.leaves: dict[FxNode, Ref | Param] = {}   # what each exporter node is called here
        self.state: dict[str, torch.Tensor] = {}

    def model(self) -> Model:
        self._read_state()
        signature = {spec.arg.name: spec for spec in self.exported.graph_signature.input_specs}
        inputs, nodes = [], []
        output: FxNode | None = None
        for fx in self.exported.graph.nodes:
            if fx.op == "placeholder":
                spec = signature[fx.name]
                if spec.kind == InputKind.USER_INPUT:
                    inputs.append(self._input(fx))
                else:
                    self.leaves[fx] = Param(str(spec.target))
            elif fx.op == "call_function":
                if fx.users or fx.target in OUT_OF_PLACE:  # the rest are assertions on sizes
                    nodes.append(self._node(fx))
            elif fx.op == "output":
                output = fx
            else:
                raise CaptureError(f"the exported graph holds a {fx.op} node {fx.name!r}, which cannot be read "
                                   "(a nested graph, such as torch.cond, has no integer form)")
        assert output is not None, "every exported graph ends in an output"
        graph = Graph(tuple(inputs), tuple(nodes), self._structure(output), self.style)
        used = {name for node in nodes for name in node.params}
        return Model(graph, {name: tensor for name, tensor in self.state.items()
                             if name in used or isinstance(tensor, nn.Parameter) or name in self._buffers})

    def _read_state(self) -> None:
        self._buffers = set(self.exported.graph_signature.buffers)
        self.state.update(self.exported.state_dict)
        for name, value in self.exported.constants.items():
            if isinstance(value, torch.Tensor):
                self.state.setdefault(name, value)
        for name, tensor in self.state.items():
            if name in self.exported.graph_signature.parameters and not isinstance(tensor, nn.Parameter):
                self.state[name] = nn.Parameter(tensor)

    def _input(self, fx: FxNode) -> Input:
        value = fx.meta["val"]
        if not isinstance(value, torch.Tensor):
            raise CaptureError(f"input {fx.name!r} is no tensor")
        self.names.add(fx.name)
        self.leaves[fx] = Ref(fx.name)
        return Input(fx.name, _shape(value), str(value.dtype).removeprefix("torch."))

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
        node = Node(name, target, arguments, positional, module[0] if module else "", source,
                    _shape(fx.meta["val"]) if isinstance(fx.meta.get("val"), torch.Tensor) else None)
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

        spec = self.exported.call_spec.out_spec
        assert spec is not None, "an exported program knows its output"
        structure = pytree.tree_unflatten([name(item) for item in output.args[0]], spec)  # type: ignore[union-attr]
        return _plain(structure)


def _plain(structure: Any) -> Any:
    if isinstance(structure, Mapping):
        return {str(key): _plain(item) for key, item in structure.items()}
    if type(structure) in (list, tuple):
        return type(structure)(_plain(item) for item in structure)
    if isinstance(structure, str) or structure is None:
        return structure
    raise CaptureError(f"the model returns a {type(structure).__name__}: return tensors in dicts, lists or tuples")


def _shape(value: torch.Tensor) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in value.shape)


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
    return _user_line(fx.meta.get("stack_trace") or "")

"""The graph of a .pt2 archive: JSON in, calls of ATen operators out. Nothing in it is evaluated."""

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph as FxGraph
from torch.fx import Node as FxNode

from fewbits.capture.quantized_elsewhere import quantized_operator
from fewbits.capture.traced import user_line
from fewbits.graph.graph import Shape
from fewbits.pt2.operators import is_assertion, known

DTYPES: Mapping[int, torch.dtype] = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16}
"""As the schema numbers them (torch/_export/serde/schema.py, ScalarType)."""
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d,
                   4: torch.preserve_format}
_STRIDED, _POSITIONAL = 7, 1
_SHOWN, _NAME_SHOWN = 8, 80  # operators in a refusal, and letters of their names
_LONGEST = 900  # letters of a refusal: names in a file may have any length
_PLAIN = ("as_int", "as_ints", "as_string", "as_strings", "as_bool", "as_bools", "as_int_lists")


class Pt2Error(Exception):
    """What a file holds that is not read, and the mend; the reader puts the file's name in front."""

    def __init__(self, told: str):
        super().__init__(told if len(told) <= _LONGEST else f"{told[:_LONGEST]}… (cut): save it again")


@dataclass(frozen=True, eq=False)
class Read:
    """As `Traced` has them. buffers: names of buffers, read or not."""

    graph: FxGraph
    placeholders: Mapping[str, str]
    buffers: frozenset[str]
    results: Mapping[FxNode, tuple[Shape, torch.dtype]]
    structure: Any


def read_graph(module: Mapping[str, Any]) -> Read:
    """The graph of a serialized GraphModule. Raises Pt2Error, or whatever damaged JSON leads to."""
    return _GraphReader(module["graph"]).read(module)


class _GraphReader:
    def __init__(self, told: Mapping[str, Any]):
        self.told = told
        self.graph = FxGraph()
        self.made: dict[str, FxNode] = {}
        self.results: dict[FxNode, tuple[Shape, torch.dtype]] = {}

    def read(self, module: Mapping[str, Any]) -> Read:
        signature = module["signature"]
        placeholders, buffers = {}, set()
        given = zip(self.told["inputs"], signature["input_specs"], strict=True)
        for argument, spec in given:
            (kind, held), = spec.items()
            if kind == "buffer":
                buffers.add(held["buffer_name"])
            name = self._input_name(argument, kind)
            if name is None:  # a value that the export fixed
                continue
            self._keep(name, self.graph.create_node("placeholder", name))
            placeholders[name] = "" if kind == "user_input" else held[f"{kind}_name"]
        calls = [node for node in self.told["nodes"] if not is_assertion(node["target"])]
        _check_operators(calls)
        for node in calls:
            self._call(node)
        for spec in signature["output_specs"]:
            if "user_output" not in spec:
                raise Pt2Error(f"has a {next(iter(spec))} among its outputs: export the network in evaluation mode, "
                              "and do not decompose it")
        outputs = [self._argument(item, "output") for item in self.told["outputs"]]
        self.graph.output(tuple(outputs))
        return Read(self.graph, placeholders, frozenset(buffers), self.results, _structure(module, len(outputs)))

    def _input_name(self, argument: Mapping[str, Any], kind: str) -> str | None:
        if kind == "constant_input":
            return None
        if kind not in ("user_input", "parameter", "buffer", "tensor_constant"):
            raise Pt2Error(f"has a {kind} among its inputs, which could hold code: export a network of plain tensors")
        if "as_tensor" not in argument:
            raise Pt2Error(f"takes an input that is no tensor ({next(iter(argument))}): export it with tensors only")
        return argument["as_tensor"]["name"]

    def _keep(self, name: str, node: FxNode) -> None:
        """Knows a node by the file's name for it, and what tensor it makes."""
        if not isinstance(name, str) or name in self.made:
            raise Pt2Error(f"uses the name {name!r} twice: save it again")
        self.made[name] = node
        if (meta := self.told["tensor_values"].get(name)) is not None:
            shape = tuple(size.get("as_int") for size in meta["sizes"])
            if not all(size is None or (type(size) is int and size >= 0) for size in shape):
                raise Pt2Error(f"says that {name!r} has shape {list(shape)}: save it again")
            self.results[node] = (shape, DTYPES[meta["dtype"]])

    def _call(self, told: Mapping[str, Any]) -> None:
        label = str(told["target"])
        target = known(label)
        assert target is not None, "all operators were looked up before the first is used"
        schema = getattr(target, "_schema", None)
        names = None if schema is None else [argument.name for argument in schema.arguments]
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for position, item in enumerate(told["inputs"]):
            value = self._argument(item["arg"], label)
            if names is None:
                args.append(value)
            elif item["name"] not in names:
                raise Pt2Error(f"calls {label} with an argument {item['name']!r} that it does not have: save it again")
            elif item["kind"] == _POSITIONAL and position < len(names) and names[position] == item["name"]:
                args.append(value)
            else:
                kwargs[item["name"]] = value
        node = self.graph.create_node("call_function", target, tuple(args), kwargs)
        node.meta["stack_trace"] = told["metadata"].get("stack_trace", "")
        node.meta["nn_module_stack"] = _modules(told["metadata"].get("nn_module_stack", ""))
        self._name_results(told["outputs"], node)

    def _name_results(self, outputs: list[Mapping[str, Any]], node: FxNode) -> None:
        results: list[Any] = []
        for output in outputs:
            (kind, held), = output.items()
            if kind == "as_tensors":
                results += [item["name"] for item in held]
            elif kind in ("as_tensor", "as_sym_int", "as_sym_bool", "as_sym_float"):
                results.append(held["name"] if kind == "as_tensor" else held.get("as_name"))
            elif kind != "as_none":
                raise Pt2Error(f"has an operator that gives a {kind.removeprefix('as_')}: export a network of tensors")
        if len(results) == 1 and "as_tensors" not in outputs[0]:
            self._keep(results[0], node)
            return
        for i, name in enumerate(results):
            item = self.graph.create_node("call_function", operator.getitem, (node, i))
            item.meta |= node.meta
            self._keep(name, item)

    def _argument(self, told: Mapping[str, Any], where: str) -> Any:
        (kind, held), = told.items()
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return self._made(held["name"])
            case "as_tensors":
                return [self._made(item["name"]) for item in held]
            case "as_optional_tensors":
                return [self._argument(item, where) for item in held]
            case "as_optional_tensor":
                return self._argument(held, where)
            case "as_sym_int":
                return self._size(held)
            case "as_sym_ints":
                return [self._size(item) for item in held]
            case "as_float":
                return float(held)  # "Infinity" too
            case "as_floats":
                return [float(item) for item in held]
            case "as_scalar_type":
                return DTYPES[held]
            case "as_memory_format":
                return _MEMORY_FORMATS[held]
            case "as_layout" if held == _STRIDED:
                return torch.strided
            case "as_device":
                return torch.device(held["type"])
            case _ if kind in _PLAIN:
                return held
        raise Pt2Error(f"gives {where} a {kind.removeprefix('as_').replace('_', ' ')}, which is not read: export a "
                      "network of plain tensors, without nested graphs")

    def _size(self, told: Mapping[str, Any]) -> Any:
        return told["as_int"] if "as_int" in told else self._made(told["as_name"])

    def _made(self, name: str) -> FxNode:
        if name not in self.made:
            raise Pt2Error(f"reads {name!r} before anything made it: save it again")
        return self.made[name]


def _check_operators(calls: Sequence[Mapping[str, Any]]) -> None:
    """Raises Pt2Error that lists the operators a file may not name, with their lines, before any of them is used."""
    unknown: dict[str, str] = {}
    for told in calls:
        if known(target := told["target"]) is None:
            unknown.setdefault(str(target)[:_NAME_SHOWN], user_line(told["metadata"].get("stack_trace", "")))
    if not unknown:
        return
    if any(map(quantized_operator, unknown)):
        raise Pt2Error("is quantized by PT2E (torchao), and quantizing begins with floats; nothing of it was run: "
                       "export the float network from before")
    shown = ", ".join(f"{name!r}{f' at {line}' if line else ''}" for name, line in list(unknown.items())[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    raise Pt2Error(f"calls {shown}{more}, which is no operator that fewbits knows, and none of it was run: export a "
                   "network without, or give the network as package.module:factory")


def _modules(text: str) -> dict[str, tuple[str, str]]:
    """What stands in `nn_module_stack`: key, path and class of each module around a call, outermost first."""
    entries = [entry.split(",") for entry in text.split(";") if entry]
    return {entry[0]: (entry[1], entry[-1]) for entry in entries if len(entry) >= 3}


def _structure(module: Mapping[str, Any], count: int) -> Any:
    """What the network returns, with the numbers of its outputs for leaves."""
    root = next(entry for entry in module["module_call_graph"] if entry["fqn"] == "")
    numbers = iter(range(count))

    def build(spec: Mapping[str, Any]) -> Any:
        kind, children = spec["type"], spec["children_spec"]
        if kind is None:
            return next(numbers)
        if kind == "builtins.tuple":
            return tuple(build(child) for child in children)
        if kind == "builtins.list":
            return [build(child) for child in children]
        if kind in ("builtins.dict", "collections.OrderedDict"):
            keys = json.loads(spec["context"])
            return {str(key): build(child) for key, child in zip(keys, children, strict=True)}
        raise Pt2Error(f"returns a {kind!r}: return tensors in dicts, lists or tuples")

    _, spec = json.loads(root["signature"]["out_spec"])
    structure = build(spec)
    if next(numbers, None) is not None:
        raise Pt2Error("returns more than its structure holds: save it again")
    return structure

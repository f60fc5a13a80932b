"""torch.export: what it makes of a module, or one sentence on why it does not. The only file that calls it."""

import inspect
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any, Literal

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from fewbits.capture.batch_sizes import check_free
from fewbits.capture.calls import batch_axis, calls, check_batch
from fewbits.capture.lines import user_line
from fewbits.capture.recurrent_calls import WholeLayers
from fewbits.capture.regions import inline_regions
from fewbits.capture.traced import Traced
from fewbits.capture.undisturbed import undisturbed, unlogged
from fewbits.errors import CaptureError
from fewbits.graph.graph import Shape
from fewbits.options import options_checked

_SHOWN = 8  # names of submodules in an error


BatchSize = Literal["any", "fixed"]


@options_checked
def follow(net: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: BatchSize = "any") -> Traced:
    """The operators of one call, the batch axis of every tensor (`calls.batch_axis`) moving, unless it is fixed.

    Raises CaptureError that says where it fails, and which submodules can be captured on their own.
    """
    try:
        exported = _export(net, args, kwargs, batch)
    except Exception as error:  # the exporter raises dozens of kinds; each becomes one sentence
        parts = _capturable(net, args, kwargs)
        shown = f"{json.dumps(parts[:_SHOWN])}{' and more' if parts[_SHOWN:] else ''}"
        way = f"; or go by parts: fb.capture(net, example, parts={shown})" if parts else ""
        raise CaptureError(_explain(error) + way) from error
    check_free(exported)
    return _traced(exported)


def _traced(exported: ExportedProgram) -> Traced:
    inline_regions(exported.graph_module)
    signature, placeholders = exported.graph_signature, {}
    for spec in signature.input_specs:
        if spec.kind != InputKind.USER_INPUT:
            placeholders[spec.arg.name] = str(spec.target)
        elif not isinstance(spec.arg, ConstantArgument):
            placeholders[spec.arg.name] = ""
    state: dict[str, torch.Tensor] = {
        name: nn.Parameter(tensor) if name in signature.parameters and not isinstance(tensor, nn.Parameter) else tensor
        for name, tensor in exported.state_dict.items()}
    for name, value in exported.constants.items():
        if isinstance(value, torch.Tensor):
            state.setdefault(name, value)
    results = {node: (_shape(value), value.dtype) for node in exported.graph.nodes
               if isinstance(value := node.meta.get("val"), torch.Tensor)}
    spec = exported.call_spec.out_spec
    assert spec is not None, "an exported program knows its output"
    structure = pytree.tree_unflatten(range(spec.num_leaves), spec)
    return Traced(exported.graph, placeholders, state, set(signature.buffers), results, structure)


def _shape(value: torch.Tensor) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _export(net: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: BatchSize) -> ExportedProgram:
    tensors = [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, torch.Tensor)]

    def moving(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or batch == "fixed":
            return None
        return {batch_axis(leaf, tensors): Dim.DYNAMIC}

    given = inspect.signature(net.forward).bind(*args, **kwargs).arguments  # *args as a tuple, **kwargs as a dict
    shapes = pytree.tree_map(moving, dict(given))
    with torch.no_grad(), undisturbed(), _quiet(), WholeLayers():
        return export(net, args, dict(kwargs), dynamic_shapes=shapes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the graphs and guesses that the exporter prints when it fails."""
    with unlogged("torch.fx.experimental.symbolic_shapes"), redirect_stderr(io.StringIO()):
        yield


def _capturable(net: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Names of the largest submodules with weights that the exporter follows, each called in one way only."""
    inside = {name: module for name, module in net.named_modules() if name and any(True for _ in module.parameters())}
    seen = calls(net, inside, args, kwargs)
    found: list[str] = []
    for name, module in inside.items():
        within = any(name.startswith(f"{larger}.") for larger in found)
        if within or len({call.signature for call in seen[name]}) != 1:
            continue
        call = seen[name][0]
        try:
            for tensor in call.tensors:
                check_batch(tensor, batch_axis(tensor, call.tensors))
            _export(module, call.args, call.kwargs, "any")
        except Exception:  # that it fails is the answer
            continue
        found.append(name)
    return found


def _explain(error: Exception) -> str:
    text = str(error)
    where = user_line(text)
    place = f" at {where}" if where else ""
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return (f"the model's control flow depends on data{place}: branch on tensor values cannot be captured; "
                "use torch.where")
    if "specialized" in text or "constraint" in text.lower():
        return (f"the model fixes the batch size{place}: write shapes with x.shape[0] or -1 "
                "instead of a number, and give recurrent layers batch_first=True; or capture it with "
                "batch=\"fixed\", for batches of the example's size alone")
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"torch.export cannot follow the model{place}: {first}"

"""Regions of a traced graph (`torch.no_grad`, `torch.autocast`) laid open: their operators become the graph's own."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph as FxGraph
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from fewbits.capture.lines import user_line
from fewbits.errors import CaptureError

_HIGHER = torch.ops.higher_order


def inline_regions(module: GraphModule) -> None:
    """Replaces each region by the operators in it, those of regions within regions too.

    Raises CaptureError for a region of torch.autocast that computes in fewer bits: its operators say nothing of that.
    """
    graph = module.graph
    while (region := next((node for node in graph.nodes if node.target in _BODIES), None)) is not None:
        name, given = _BODIES[region.target](region)
        body = getattr(module, str(name.target))
        _lay_open(graph, region, body, given)
        if not name.users:
            graph.erase_node(name)
        for inner, part in body.named_children():  # regions in it keep their names where these are free
            if getattr(module, inner, part) is not part:
                raise CaptureError(f"two regions of the model are called {inner!r}: write them without nesting")
            setattr(module, inner, part)


def _lay_open(graph: FxGraph, region: FxNode, body: GraphModule, given: tuple[Any, ...]) -> None:
    takers = [node for node in body.graph.nodes if node.op == "placeholder"]
    known: dict[FxNode, FxNode] = dict(zip(takers, given, strict=True))
    with graph.inserting_before(region):
        results: Any = graph.graph_copy(body.graph, known)
    for reader in list(region.users):
        assert reader.target is operator.getitem, "a region returns a tuple"
        reader.replace_all_uses_with(results[reader.args[1]])
        graph.erase_node(reader)
    graph.erase_node(region)


def _gradient(region: FxNode) -> tuple[FxNode, tuple[Any, ...]]:
    _, body, *given = region.args
    assert isinstance(body, FxNode), "a region has a body"
    return body, tuple(given)


def _autocast(region: FxNode) -> tuple[FxNode, tuple[Any, ...]]:
    _, dtype, enabled, _, body, *given = region.args
    assert isinstance(body, FxNode), "a region has a body"
    if enabled and dtype is not torch.float32:
        where = user_line(next((node.meta.get("stack_trace") or "" for node in region.users), ""))
        raise CaptureError(f"the model computes in torch.autocast ({str(dtype).removeprefix('torch.')})"
                           f"{f' at {where}' if where else ''}: quantizing starts from float32, so leave the autocast "
                           "out, or set enabled=False")
    return body, tuple(given)


_BODIES: dict[Any, Callable[[FxNode], tuple[FxNode, tuple[Any, ...]]]] = {
    _HIGHER.wrap_with_set_grad_enabled: _gradient, _HIGHER.wrap_with_autocast: _autocast}

"""Batch norm and constants computed beforehand, for use after training."""

from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from fewbits.capture.free_sizes import marked
from fewbits.fold.batch_norm import prediction, scale_and_shift
from fewbits.fold.constants import without_constants
from fewbits.fold.decompose import decompose
from fewbits.fold.exact import with_casts, with_entries
from fewbits.fold.unrolled import warn_of_loops
from fewbits.graph.graph import Input, Node, Param, Ref
from fewbits.graph.model import Model
from fewbits.graph.operators import operator_of
from fewbits.options import options_checked
from fewbits.program.program import fill, leaves

aten = torch.ops.aten


@options_checked
def fold(model: Model, norms: Literal["fold", "keep"] = "fold") -> Model:
    """The model without batch norm, dropout and operators on constants; its outputs stay within 1e-4 of
    their range. norms: `keep` leaves batch norm and dropout live, for training.

    Batch norm behind a convolution or linear layer that nothing else reads goes into its weights,
    w·γ/√(σ²+ε) and (b−μ)·γ/√(σ²+ε)+β (Jacob et al. 2018, arXiv:1712.05877, eq. 14); elsewhere it becomes
    a depthwise 1×1 convolution. Works on the copy that `capture` made: the model passed in is spent, so that
    quantizing never holds a third copy of the weights. Warns (UnrolledWarning) where a loop over steps stays a
    layer for each step.
    """
    _drop_dead(model)
    rebuild(model, without_constants(model), {})
    if norms == "fold":
        _drop_gone(model)
    rebuild(model, *decompose(model))
    _drop_dead(model)
    rebuild(model, with_casts(model), {})
    rebuild(model, with_entries(model), {})
    if norms == "fold":
        _fold_batch_norm(model)
    _drop_dead(model)
    model.graph = marked(model)
    warn_of_loops(model.graph)
    model.folded = True
    return model


def rebuild(model: Model, nodes: list[Node], renamed: dict[str, str]) -> None:
    """Puts new nodes in, reading `renamed[x]` wherever they read x, and forgets unused tensors."""
    ends: dict[str, str] = {}

    def target(name: str) -> str:
        way = []
        while name in renamed:
            way.append(name)
            name = ends.get(name, renamed[name])
        ends.update(dict.fromkeys(way, name))  # so that nobody goes the whole way again
        return name

    def redirect(item: object) -> object:
        return Ref(target(item.name)) if isinstance(item, Ref) and item.name in renamed else item

    nodes = [node.changed(redirect) for node in nodes]
    graph = model.graph
    structure = fill(graph.structure, {name: target(name) for name in leaves(graph.structure)})
    predicted = model.predicted
    used = dict.fromkeys(name for node in nodes for name in node.params)
    if tuple(nodes) == graph.nodes and structure == graph.structure and used.keys() == dict(
            (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))).keys():
        model.eval()
        return  # the same nodes, each of them the very one, and nothing to forget
    state = {name: model.tensor(name) for name in used}
    for name in list(model._modules):
        del model._modules[name]
    model._parameters.clear()
    model._buffers.clear()
    Model.__init__(model, replace(graph, nodes=tuple(nodes), structure=structure), state)
    model.predicted = predicted
    model.eval()


def _drop_dead(model: Model) -> None:
    """Leaves out nodes whose results nobody reads."""
    wanted = set(model.graph.outputs)
    kept = []
    for node in reversed(model.graph.nodes):
        if node.name in wanted:
            kept.append(node)
            wanted.update(node.refs)
    rebuild(model, kept[::-1], {})


def _drop_gone(model: Model) -> None:
    """Leaves out dropout and other operators that do nothing at inference. Casts of truth values and integers make
    numbers: they stay."""
    renamed, kept = {}, []
    shapes = model.shapes()
    made: dict[str, Node | Input] = {**model.graph.inputs_by_name, **model.graph.by_name}
    for node in model.graph.nodes:
        row = node.operator
        if (row is not None and row.role == "gone" and row.refuse(node, shapes) is None
                and made[node.refs[0]].dtype == node.dtype):
            renamed[node.name] = node.refs[0]
        else:
            kept.append(node)
    rebuild(model, kept, renamed)


def _fold_batch_norm(model: Model) -> None:
    graph, shapes = model.graph, model.shapes()
    nodes: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for node in model.graph.nodes:
        if node.role != "norm":
            nodes[node.name] = node
            continue
        scale, shift = scale_and_shift(model, node)
        source: str = node["input"].name
        before = nodes.get(renamed.get(source, source))
        row = None if before is None else before.operator
        alone = len(graph.consumers[source]) == 1 and source not in graph.outputs
        if (before is not None and row is not None and row.role == "dot" and alone
                and row.refuse(before, shapes) is None and len(graph.param_consumers[before["weight"].name]) == 1):
            nodes[before.name] = _into_weights(model, before, scale, shift)
            if (normal := prediction(model, node)) is not None:
                model.predicted[before.name] = normal
            renamed[node.name] = before.name
        else:
            nodes[node.name] = _as_depthwise(model, node, scale, shift)
    rebuild(model, list(nodes.values()), renamed)


def _into_weights(model: Model, node: Node, scale: torch.Tensor, shift: torch.Tensor) -> Node:
    name = node["weight"].name
    weight = model.tensor(name)
    with torch.no_grad():
        weight.mul_(scale.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1)))
    old = node["bias"]
    bias = shift if old is None else model.tensor(old.name).detach().double() * scale + shift
    bias_name = f"{name.removesuffix('weight')}bias" if old is None else old.name
    model.set_tensor(bias_name, nn.Parameter(bias.to(weight.dtype)))
    return replace(node, arguments=dict(node.arguments) | {"bias": Param(bias_name)})


def _as_depthwise(model: Model, node: Node, scale: torch.Tensor, shift: torch.Tensor) -> Node:
    if node.shape is None or len(node.shape) != 4:
        return node  # stays batch norm: a table per channel
    weight, bias = f"{node.name}.scale", f"{node.name}.shift"
    model.set_tensor(weight, nn.Parameter(scale.float().reshape(-1, 1, 1, 1)))
    model.set_tensor(bias, nn.Parameter(shift.float()))
    arguments = {"input": node["input"], "weight": Param(weight), "bias": Param(bias), "stride": [1, 1],
                 "padding": [0, 0], "dilation": [1, 1], "groups": scale.numel()}
    convolution = aten.conv2d.default
    return replace(node, target=convolution, operator=operator_of(convolution), arguments=arguments, positional=7)

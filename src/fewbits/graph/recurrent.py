"""Recurrent layers as the products and functions of each of their steps.

The gates as torch.nn.LSTM and torch.nn.GRU define them (Hochreiter and Schmidhuber 1997; Cho et al. 2014,
arXiv:1406.1078, the reset gate behind the product as in cuDNN). A sequence is unrolled over its fixed length; its batch
comes first.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fewbits.graph.draft import Draft
from fewbits.graph.graph import Node, Param, Ref

aten = torch.ops.aten

State = tuple[Any, ...]
"""h, or h and c; None where it is 0."""


def zero_state(draft: Draft, node: Node) -> bool:
    """Zeros that only recurrent layers read: their first state, which costs no product."""
    readers = draft.readers[node.name]
    if not readers or any(reader.target not in RECURRENT for reader in readers):
        return False
    draft.zeros[node.name] = node
    return True


def lstm_cell(draft: Draft, node: Node) -> bool:
    """One step of an LSTM; its results are read one by one."""
    weights = [node[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    h, c = _lstm_step(draft, node, node.name, node["input"], _states(draft, node["hx"]), weights)
    for reader in draft.readers[node.name]:
        draft.renamed[reader.name] = (h, c)[reader["argument1"]].name
    return True


def gru_cell(draft: Draft, node: Node) -> bool:
    """One step of a GRU."""
    weights = [node[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    (h,) = _gru_step(draft, node, node.name, node["input"], _states(draft, [node["hx"]]), weights)
    draft.renamed[node.name] = h.name
    return True


def lstm(draft: Draft, node: Node) -> bool:
    """A stack of LSTM layers over a sequence."""
    return _sequence(draft, node, _lstm_step, 2)


def gru(draft: Draft, node: Node) -> bool:
    """A stack of GRU layers over a sequence."""
    return _sequence(draft, node, _gru_step, 1)


RECURRENT = (aten.lstm_cell.default, aten.gru_cell.default, aten.lstm.input, aten.gru.input)
"""Layers with a state, by their calls."""


def _states(draft: Draft, states: list[Any]) -> State:
    return tuple(None if _is_zero(draft, state) else state for state in states)


def _is_zero(draft: Draft, state: Any) -> bool:
    if isinstance(state, Param):
        return not draft.model.tensor(state.name).any()
    return isinstance(state, Ref) and state.name in draft.zeros


def _sequence(draft: Draft, node: Node, step: Callable[..., State], count: int) -> bool:
    """False, so that it is refused by name, where it does not `_fit`; its first state is then there again."""
    given = node["hx"] if isinstance(node["hx"], list) else [node["hx"]]
    directions, per = 1 + node["bidirectional"], 2 + 2 * node["has_biases"]
    length = draft.shape(node["input"])[1]
    if length is None or not _fits(draft, node, given, directions * per):
        for state in given:
            if isinstance(state, Ref) and state.name in draft.zeros:
                draft.keep(draft.zeros.pop(state.name))
        return False
    steps = [_picked(draft, node, node["input"], at) for at in range(length)]
    last: list[State] = []
    for layer in range(node["num_layers"]):
        both: list[list[Any]] = []
        for direction in range(directions):
            index = layer * directions + direction
            weights = list(node["params"][index * per:(index + 1) * per])
            weights += [None] * (4 - len(weights))
            outputs: list[Any] = [None] * length
            state: State = (None,) * count
            for at in range(length)[:: -1 if direction else 1]:
                name = f"{node.name}.layer{layer}{'.back' * direction}.step{at}"
                state = step(draft, node, name, steps[at], state, weights)
                outputs[at] = state[0]
            last.append(state)
            both.append(outputs)
        steps = both[0] if directions == 1 else [_joined(draft, node, f"{node.name}.layer{layer}.both{at}", pair)
                                                 for at, pair in enumerate(zip(*both, strict=True))]
    for reader in draft.readers[node.name]:
        if reader["argument1"] == 0:
            draft.renamed[reader.name] = _stacked(draft, node, f"{node.name}.outputs", steps).name
        else:
            for pick in draft.readers[reader.name]:
                draft.renamed[pick.name] = last[pick["index"]][reader["argument1"] - 1].name
            draft.renamed[reader.name] = node.name
    return True


def _fits(draft: Draft, node: Node, given: list[Any], parameters: int) -> bool:
    """Not where the batch is behind time, the first state is not 0, the last states of all layers are asked for
    together, or a layer has more parameters, as one that projects its state has."""
    if not node["batch_first"] or any(state is not None for state in _states(draft, given)):
        return False
    if len(node["params"]) != parameters * node["num_layers"]:
        return False
    return all(reader["argument1"] == 0 or _picks_layers(draft, reader) for reader in draft.readers[node.name])


def _picks_layers(draft: Draft, states: Node) -> bool:
    return states.name not in draft.outputs and all(
        reader.target is aten.select.int and reader["dim"] == 0 for reader in draft.readers[states.name])


def _lstm_step(draft: Draft, node: Node, name: str, x: Any, state: State, weights: list[Any]) -> State:
    (h, c), hidden = state, _width(draft, weights)
    gates = _products(draft, node, name, x, h, weights)
    i, f, g, o = (_part(draft, node, f"{name}.{gate}", gates, at * hidden, hidden) for at, gate in enumerate("ifgo"))
    i, o = (_apply(draft, node, part, aten.sigmoid.default) for part in (i, o))
    g = _apply(draft, node, g, aten.tanh.default)
    cell = _pair(draft, node, f"{name}.new", aten.mul.Tensor, i, g)
    if c is not None:
        kept = _pair(draft, node, f"{name}.kept", aten.mul.Tensor, _apply(draft, node, f, aten.sigmoid.default), c)
        cell = _pair(draft, node, f"{name}.cell", aten.add.Tensor, kept, cell)
    return _pair(draft, node, f"{name}.hidden", aten.mul.Tensor, o, _apply(draft, node, cell, aten.tanh.default)), cell


def _gru_step(draft: Draft, node: Node, name: str, x: Any, state: State, weights: list[Any]) -> State:
    (h,), hidden = state, _width(draft, weights)
    w_ih, w_hh, b_ih, b_hh = weights
    given = _linear(draft, node, f"{name}.given", x, w_ih, b_ih)
    r, z, n = (_part(draft, node, f"{name}.{gate}", given, at * hidden, hidden) for at, gate in enumerate("rzn"))
    known: list[Any] = [None] * 3
    if h is not None:
        before = _linear(draft, node, f"{name}.before", h, w_hh, b_hh)
        known = [_part(draft, node, f"{name}.{gate}_before", before, at * hidden, hidden)
                 for at, gate in enumerate("rzn")]
    elif b_hh is not None:
        bias = draft.model.tensor(b_hh.name).detach()
        known = [draft.parameter(f"{name}.{gate}_bias", nn.Parameter(part.clone()))
                 for gate, part in zip("rzn", bias.chunk(3), strict=True)]
    r, z = (part if more is None else _pair(draft, node, f"{part.name}_sum", aten.add.Tensor, part, more)
            for part, more in zip((r, z), known[:2], strict=True))
    r, z = (_apply(draft, node, part, aten.sigmoid.default) for part in (r, z))
    if known[2] is not None:
        n = _pair(draft, node, f"{name}.n_sum", aten.add.Tensor, n,
                  _pair(draft, node, f"{name}.reset", aten.mul.Tensor, r, known[2]))
    n = _apply(draft, node, n, aten.tanh.default)
    if h is None:  # h' = n + z · (h − n)
        return (_pair(draft, node, f"{name}.hidden", aten.sub.Tensor, n,
                      _pair(draft, node, f"{name}.update", aten.mul.Tensor, z, n)),)
    change = _pair(draft, node, f"{name}.change", aten.sub.Tensor, h, n)
    return (_pair(draft, node, f"{name}.hidden", aten.add.Tensor, n,
                  _pair(draft, node, f"{name}.update", aten.mul.Tensor, z, change)),)


def _products(draft: Draft, node: Node, name: str, x: Any, h: Any, weights: list[Any]) -> Ref:
    """W_ih x + b_ih + W_hh h + b_hh; both biases at once where h is 0."""
    w_ih, w_hh, b_ih, b_hh = weights
    if h is not None:
        return _pair(draft, node, f"{name}.gates", aten.add.Tensor,
                     _linear(draft, node, f"{name}.given", x, w_ih, b_ih),
                     _linear(draft, node, f"{name}.before", h, w_hh, b_hh))
    bias = b_ih
    if b_ih is not None:
        both = sum(draft.model.tensor(each.name).detach() for each in (b_ih, b_hh))
        assert isinstance(both, torch.Tensor)
        bias = draft.parameter(f"{name}.bias", nn.Parameter(both))
    return _linear(draft, node, f"{name}.gates", x, w_ih, bias)


def _width(draft: Draft, weights: list[Any]) -> int:
    return draft.model.tensor(weights[1].name).shape[1]


def _linear(draft: Draft, node: Node, name: str, x: Any, weight: Param, bias: Param | None) -> Ref:
    outputs = draft.model.tensor(weight.name).shape[0]
    return draft.emit(node, name, aten.linear.default, {"input": x, "weight": weight, "bias": bias}, (None, outputs))


def _part(draft: Draft, node: Node, name: str, x: Ref, start: int, length: int) -> Ref:
    return draft.emit(node, name, aten.slice.Tensor,
                      {"self": x, "dim": 1, "start": start, "end": start + length, "step": 1}, (None, length))


def _picked(draft: Draft, node: Node, x: Any, at: int) -> Ref:
    width = draft.shape(x)[2]
    return draft.emit(node, f"{node.name}.input{at}", aten.select.int, {"self": x, "dim": 1, "index": at},
                      (None, width))


def _apply(draft: Draft, node: Node, x: Ref, function: Callable[..., Any]) -> Ref:
    words = str(getattr(function, "__name__", function)).split(".")[0]
    return draft.emit(node, f"{x.name}.{words}", function, {"self": x}, draft.shape(x))


def _pair(draft: Draft, node: Node, name: str, operator: Callable[..., Any], first: Any, second: Any) -> Ref:
    arguments = {"self": first, "other": second} | ({} if operator is aten.mul.Tensor else {"alpha": 1})
    return draft.emit(node, name, operator, arguments, draft.shape(first))


def _joined(draft: Draft, node: Node, name: str, pair: Any) -> Ref:
    width = sum(draft.shape(item)[1] or 0 for item in pair)
    return draft.emit(node, name, aten.cat.default, {"tensors": list(pair), "dim": 1}, (None, width))


def _stacked(draft: Draft, node: Node, name: str, steps: list[Any]) -> Ref:
    width = draft.shape(steps[0])[1]
    rows = [draft.emit(node, f"{name}.{at}", aten.unsqueeze.default, {"self": step, "dim": 1}, (None, 1, width))
            for at, step in enumerate(steps)]
    return draft.emit(node, name, aten.cat.default, {"tensors": rows, "dim": 1}, (None, len(steps), width))

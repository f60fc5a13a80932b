"""Recurrent layers as recurrences: nodes with a body that says what one step does (graph.Body).

The gates as torch.nn.LSTM, torch.nn.GRU and torch.nn.RNN define them (Hochreiter and Schmidhuber 1997, with projections
Sak et al. 2014, arXiv:1402.1128; Cho et al. 2014, arXiv:1406.1078, the reset gate behind the product as in cuDNN; Elman
1990). The products with a layer's input are taken for all steps at once, in front of the recurrence; its body holds
those with the state.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fewbits.fold.draft import Draft
from fewbits.fold.unrolled import rolled
from fewbits.graph.functions import recurrence, state, step
from fewbits.graph.graph import Body, Node, Param, Ref

aten = torch.ops.aten

State = tuple[Any, ...]
"""h, or h and c."""


@dataclass(frozen=True)
class _Weights:
    """Of one layer in one direction; None where it has none. project: of the state (LSTM)."""

    given: Param
    before: Param
    given_bias: Param | None = None
    before_bias: Param | None = None
    project: Param | None = None


@dataclass(frozen=True)
class _Cell:
    """A kind of recurrent layer. states: how many a step carries on; step: from the products with its input and its
    states, those that follow; gates: how many parts the products have."""

    states: int
    gates: int
    step: Callable[[Draft, Node, str, Ref, State, _Weights], State]


def zero_state(draft: Draft, node: Node) -> bool:
    """Zeros that only recurrent layers read: their first state."""
    readers = draft.readers[node.name]
    if not readers or any(reader.target not in RECURRENT for reader in readers):
        return False
    draft.zeros[node.name] = node
    return True


# ------------------------------------------------------------------------------- what a step does


def _lstm_step(draft: Draft, node: Node, name: str, given: Ref, before: State, weights: _Weights) -> State:
    h, c = before
    gates = _pair(draft, node, f"{name}.gates", aten.add.Tensor, given, _of_state(draft, node, name, h, weights))
    i, f, g, o = _parts(draft, node, name, gates, "ifgo")
    i, f, o = (_apply(draft, node, part, aten.sigmoid.default) for part in (i, f, o))
    g = _apply(draft, node, g, aten.tanh.default)
    cell = _pair(draft, node, f"{name}.cell", aten.add.Tensor,
                 _pair(draft, node, f"{name}.kept", aten.mul.Tensor, f, c),
                 _pair(draft, node, f"{name}.new", aten.mul.Tensor, i, g))
    bounded = _apply(draft, node, cell, aten.tanh.default)
    if weights.project is None:
        return _pair(draft, node, f"{name}.hidden", aten.mul.Tensor, o, bounded), cell
    whole = _pair(draft, node, f"{name}.whole", aten.mul.Tensor, o, bounded)
    return _linear(draft, node, f"{name}.hidden", whole, weights.project, None), cell


def _gru_step(draft: Draft, node: Node, name: str, given: Ref, before: State, weights: _Weights) -> State:
    (h,) = before
    known = _of_state(draft, node, name, h, weights)
    r, z, n = _parts(draft, node, name, given, "rzn")
    r_before, z_before, n_before = _parts(draft, node, f"{name}.before", known, "rzn")
    r, z = (_apply(draft, node, _pair(draft, node, f"{name}.{gate}_sum", aten.add.Tensor, part, more),
                   aten.sigmoid.default) for gate, part, more in (("r", r, r_before), ("z", z, z_before)))
    reset = _pair(draft, node, f"{name}.reset", aten.mul.Tensor, r, n_before)
    n = _apply(draft, node, _pair(draft, node, f"{name}.n_sum", aten.add.Tensor, n, reset), aten.tanh.default)
    change = _pair(draft, node, f"{name}.change", aten.sub.Tensor, h, n)  # h' = n + z · (h − n)
    return (_pair(draft, node, f"{name}.hidden", aten.add.Tensor, n,
                  _pair(draft, node, f"{name}.update", aten.mul.Tensor, z, change)),)


def _rnn_step(function: Callable[..., Any], draft: Draft, node: Node, name: str, given: Ref, before: State,
              weights: _Weights) -> State:
    total = _pair(draft, node, f"{name}.sum", aten.add.Tensor, given, _of_state(draft, node, name, before[0], weights))
    return (_apply(draft, node, total, function, f"{name}.hidden"),)


def _tanh_step(*given: Any) -> State:
    return _rnn_step(aten.tanh.default, *given)


def _relu_step(*given: Any) -> State:
    return _rnn_step(aten.relu.default, *given)


_LSTM, _GRU = _Cell(2, 4, _lstm_step), _Cell(1, 3, _gru_step)
_KINDS: dict[Any, _Cell] = {
    aten.lstm.input: _LSTM, aten.lstm_cell.default: _LSTM, aten.gru.input: _GRU, aten.gru_cell.default: _GRU,
    aten.rnn_tanh.input: _Cell(1, 1, _tanh_step), aten.rnn_tanh_cell.default: _Cell(1, 1, _tanh_step),
    aten.rnn_relu.input: _Cell(1, 1, _relu_step), aten.rnn_relu_cell.default: _Cell(1, 1, _relu_step),
}

CELLS = (aten.lstm_cell.default, aten.gru_cell.default, aten.rnn_tanh_cell.default, aten.rnn_relu_cell.default)
"""One step, by its call."""

LAYERS = (aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
"""A stack of layers over a sequence, by its call."""

RECURRENT = CELLS + LAYERS


# ------------------------------------------------------------------------------- sequences


def layers(draft: Draft, node: Node) -> bool:
    """A stack of layers over a sequence, each of them a recurrence, or two where it runs both ways."""
    axis, directions = int(node["batch_first"]), 1 + node["bidirectional"]
    given = _per_state(draft, node)
    sequence, lasts = node["input"], []
    for layer in range(node["num_layers"]):
        outputs = []
        for direction in range(directions):
            index = len(lasts)
            name = f"{node.name}.layer{layer}{'.back' * direction}"
            weights = _weights(node, index)
            firsts = [None if whole is None else _one_of(draft, node, f"{name}.first_{letter}", whole, index)
                      for letter, whole in zip("hc", given, strict=False)]
            output, *states = _run(draft, node, name, sequence, firsts, weights, axis, bool(direction))
            outputs.append(output)
            lasts.append(states)
        sequence = outputs[0] if directions == 1 else _joined(draft, node, f"{node.name}.layer{layer}.both", outputs, 2)
    for reader in draft.readers[node.name]:
        at = reader["argument1"]
        if at == 0:
            draft.renamed[reader.name] = sequence.name
        elif _picks_layers(draft, reader):
            for pick in draft.readers[reader.name]:
                draft.renamed[pick.name] = lasts[pick["index"]][at - 1].name
            draft.renamed[reader.name] = node.name
        else:
            draft.renamed[reader.name] = _stacked(draft, node, f"{reader.name}.layers",
                                                  [states[at - 1] for states in lasts]).name
    return True


def _run(draft: Draft, node: Node, name: str, sequence: Ref, firsts: list[Any], weights: _Weights, axis: int,
         backwards: bool) -> list[Ref]:
    """One layer in one direction: its outputs, and each state as the last step left it."""
    whole = _linear(draft, node, f"{name}.given", sequence, weights.given, weights.given_bias)
    kind, sizes = _KINDS[node.target], _sizes(draft, weights)
    batch = tuple(size for at, size in enumerate(draft.shape(sequence)[:2]) if at != axis)
    with draft.inside() as nodes:
        given = draft.emit(node, f"{name}.step", step, {"sequence": whole}, (*batch, draft.shape(whole)[2]))
        before, following = [], []
        for letter, size, first in zip("hc", sizes, firsts, strict=False):
            arguments = {"first": first, "following": f"{name}.{'hidden' if letter == 'h' else 'cell'}"}
            before.append(draft.emit(node, f"{name}.{letter}", state, arguments, (*batch, size)))
            following.append(arguments["following"])
        after = kind.step(draft, node, name, given, tuple(before), weights)
        assert [each.name for each in after] == following, "a step makes the states that it is said to"
    body = Body(tuple(nodes), after[0].name)
    made = draft.emit(node, name, recurrence, {"body": body, "axis": axis, "backwards": backwards}, None)
    shape = draft.shape(sequence)
    results = [(f"{name}.outputs", (*shape[:2], sizes[0])),
               *((f"{name}.last_{letter}", (*batch, size)) for letter, size in zip("hc", sizes, strict=False))]
    return [draft.emit(node, result, operator.getitem, {"argument0": made, "argument1": at}, size)
            for at, (result, size) in enumerate(results[:1 + kind.states])]


def _weights(node: Node, index: int) -> _Weights:
    """Those of a layer in a direction, out of all of them."""
    per = len(node["params"]) // (node["num_layers"] * (1 + node["bidirectional"]))
    own = list(node["params"][index * per:(index + 1) * per])
    given_bias, before_bias = own[2:4] if node["has_biases"] else (None, None)
    return _Weights(own[0], own[1], given_bias, before_bias, own[-1] if per % 2 else None)


def _sizes(draft: Draft, weights: _Weights) -> tuple[int, int]:
    """Of h and of c."""
    h = draft.shape(weights.before)[1]
    assert h is not None, "weights have known sizes"
    return h, (draft.shape(weights.project)[1] or 0) if weights.project is not None else h


def _per_state(draft: Draft, node: Node) -> list[Any]:
    """The first states [layers, N, size] that a call is given, None where they are 0."""
    given = node["hx"] if isinstance(node["hx"], list | tuple) else [node["hx"]]
    return [None if _is_zero(draft, each) else each for each in given]


def _is_zero(draft: Draft, value: Any) -> bool:
    if isinstance(value, Param):
        return not draft.model.tensor(value.name).any()
    return value is None or (isinstance(value, Ref) and value.name in draft.zeros)


def _one_of(draft: Draft, node: Node, name: str, states: Ref, index: int) -> Ref:
    return draft.emit(node, name, aten.select.int, {"self": states, "dim": 0, "index": index}, draft.shape(states)[1:])


def _picks_layers(draft: Draft, states: Node) -> bool:
    return states.name not in draft.outputs and all(
        reader.target is aten.select.int and reader["dim"] == 0 for reader in draft.readers[states.name])


# ------------------------------------------------------------------------------- single steps


def cell(draft: Draft, node: Node) -> bool:
    """One step of a layer, which the network itself repeats: one recurrence where it goes along a sequence; a single
    step from a state of 0 is a sequence of one step."""
    if rolled(draft, node, _run_cell):
        return True
    kind = _KINDS[node.target]
    weights, firsts = _of_cell(draft, node)
    if None in firsts:
        shape = draft.shape(node["input"])
        sequence = draft.emit(node, f"{node.name}.sequence", aten.unsqueeze.default, {"self": node["input"], "dim": 1},
                              (shape[0], 1, *shape[1:]))
        _, *after = _run(draft, node, f"{node.name}.layer", sequence, firsts, weights, 1, False)
    else:
        products = _linear(draft, node, f"{node.name}.given", node["input"], weights.given, weights.given_bias)
        after = kind.step(draft, node, node.name, products, tuple(firsts), weights)
    if kind.states == 1:
        draft.renamed[node.name] = after[0].name
    else:
        for reader in draft.readers[node.name]:
            draft.renamed[reader.name] = after[reader["argument1"]].name
    return True


def _of_cell(draft: Draft, node: Node) -> tuple[_Weights, list[Any]]:
    """Weights, and the states that it is given, None where they are 0."""
    given = node["hx"] if isinstance(node["hx"], list | tuple) else [node["hx"]]
    return (_Weights(*(node[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))),
            [None if _is_zero(draft, each) else each for each in given])


def _run_cell(draft: Draft, node: Node, name: str, sequence: Ref, axis: int, backwards: bool) -> list[Ref]:
    weights, firsts = _of_cell(draft, node)
    return _run(draft, node, name, sequence, firsts, weights, axis, backwards)


# ------------------------------------------------------------------------------- what they are made of


def _of_state(draft: Draft, node: Node, name: str, h: Ref, weights: _Weights) -> Ref:
    return _linear(draft, node, f"{name}.before", h, weights.before, weights.before_bias)


def _linear(draft: Draft, node: Node, name: str, x: Any, weight: Param, bias: Param | None) -> Ref:
    outputs = draft.model.tensor(weight.name).shape[0]
    return draft.emit(node, name, aten.linear.default, {"input": x, "weight": weight, "bias": bias},
                      (*draft.shape(x)[:-1], outputs))


def _parts(draft: Draft, node: Node, name: str, products: Ref, gates: str) -> list[Ref]:
    """The products of each gate, by its letter."""
    batch, width = draft.shape(products)
    size = (width or 0) // len(gates)
    return [draft.emit(node, f"{name}.{gate}", aten.slice.Tensor,
                       {"self": products, "dim": 1, "start": at * size, "end": (at + 1) * size, "step": 1},
                       (batch, size)) for at, gate in enumerate(gates)]


def _apply(draft: Draft, node: Node, x: Ref, function: Callable[..., Any], name: str = "") -> Ref:
    words = str(getattr(function, "__name__", function)).split(".")[0]
    return draft.emit(node, name or f"{x.name}.{words}", function, {"self": x}, draft.shape(x))


def _pair(draft: Draft, node: Node, name: str, operator: Callable[..., Any], first: Any, second: Any) -> Ref:
    arguments = {"self": first, "other": second} | ({} if operator is aten.mul.Tensor else {"alpha": 1})
    return draft.emit(node, name, operator, arguments, draft.shape(first))


def _joined(draft: Draft, node: Node, name: str, items: list[Ref], axis: int) -> Ref:
    shape = list(draft.shape(items[0]))
    shape[axis] = sum(draft.shape(item)[axis] or 0 for item in items)
    return draft.emit(node, name, aten.cat.default, {"tensors": items, "dim": axis}, tuple(shape))


def _stacked(draft: Draft, node: Node, name: str, states: list[Ref]) -> Ref:
    """States of all layers, [layers, N, size]."""
    rows: list[Any] = [draft.emit(node, f"{each.name}.row", aten.unsqueeze.default, {"self": each, "dim": 0},
                                  (1, *draft.shape(each))) for each in states]
    return rows[0] if len(rows) == 1 else _joined(draft, node, name, rows, 0)

"""Sizes of what a recurrent call is given, checked before it runs: torch's own operators trust them, and read beyond
their memory where a state has another batch than the sequence (torch.nn's layers check, their operators do not)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from fewbits.errors import DataError

aten = torch.ops.aten

_GATES: Mapping[Any, int] = {aten.lstm: 4, aten.gru: 3, aten.rnn_tanh: 1, aten.rnn_relu: 1,
          aten.lstm_cell: 4, aten.gru_cell: 3, aten.rnn_tanh_cell: 1, aten.rnn_relu_cell: 1}
"""How many parts the products of a call have."""


def check_recurrent(name: str, target: Any, given: Mapping[str, Any]) -> None:
    """Raises DataError for a recurrent call, of whatever kind, whose sequence, states and weights do not go together;
    nothing for any other call. given: its arguments by their names."""
    gates = _GATES.get(getattr(target, "overloadpacket", None))
    if gates is None:
        return
    if "batch_sizes" in given:
        raise DataError(f"recurrent call {name!r} runs over a packed sequence: give it sequences of one length")
    layers = _layers(given, gates) if "params" in given else _cell(given, gates)
    for what, tensor, wanted in layers:
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != wanted:
            got = list(tensor.shape) if isinstance(tensor, torch.Tensor) else f"a {type(tensor).__name__}"
            raise DataError(f"recurrent call {name!r} is given {what} of shape {got} where its input "
                            f"{list(given['input'].shape)} and its weights take {list(wanted)}: give each state the "
                            "batch and the size of its layer")


def _layers(given: Mapping[str, Any], gates: int) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Each tensor of a stack of layers, and the shape that it must have. Raises DataError where that cannot be told."""
    x, params, count = given["input"], given["params"], given["num_layers"] * (1 + given["bidirectional"])
    per = len(params) // count if count > 0 else 0
    # Biases come in pairs, and a projection is the one tensor more.
    if per not in ((4, 5) if given["has_biases"] else (2, 3)) or per * count != len(params) or x.ndim != 3:
        raise DataError(f"a recurrent call has {len(params)} weights for {count} layers and an input of "
                        f"{x.ndim} axes: it takes 2 to 5 a layer, and 3 axes")
    batch, steps = x.shape[1 - int(given["batch_first"])], x.shape[int(given["batch_first"])]
    if steps == 0:
        raise DataError("a recurrent call has a sequence of 0 steps: give at least one")
    size, width, cell = x.shape[2], 0, 0
    for index in range(count):
        own = params[index * per:(index + 1) * per]
        width, cell = own[1].shape[-1], own[0].shape[0] // gates
        directions = 1 + given["bidirectional"]
        yield from _weights(own, gates, size if index < directions else width * directions, width, cell)
    for number, state in enumerate(given["hx"] if isinstance(given["hx"], list | tuple) else [given["hx"]]):
        yield f"state {number}", state, (count, batch, cell if number else width)


def _cell(given: Mapping[str, Any], gates: int) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """As `_layers`, of one step."""
    x, own = given["input"], [given["w_ih"], given["w_hh"], given["b_ih"], given["b_hh"]]
    size = own[1].shape[-1]
    yield from _weights([tensor for tensor in own if tensor is not None], gates, x.shape[-1], size, size)
    for number, state in enumerate(given["hx"] if isinstance(given["hx"], list | tuple) else [given["hx"]]):
        yield f"state {number}", state, (*x.shape[:-1], size)


def _weights(own: list[Any], gates: int, size: int, width: int,
             cell: int) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    yield "input weights", own[0], (gates * cell, size)
    yield "state weights", own[1], (gates * cell, width)
    for bias in own[2:4] if len(own) > 3 else ():
        yield "a bias", bias, (gates * cell,)
    if len(own) % 2:
        yield "a projection", own[-1], (width, cell)

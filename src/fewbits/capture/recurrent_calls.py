"""Recurrent layers as one call each while a network is traced.

torch's exporter finds the shapes of what a recurrent layer gives by taking it apart, step by step: seconds for a
hundred steps. Here their calls stand for themselves, under names of our own, with the shapes that they are known to
have; `capture/synonyms.py` gives them back their names.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.library import Library
from torch.overrides import TorchFunctionMode

_REST = ("Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, "
         "bool batch_first")
_LIBRARY = Library("fewbits", "DEF")


def _outputs(x: torch.Tensor, first: torch.Tensor, bidirectional: bool, batch_first: bool) -> torch.Tensor:
    """Raises RuntimeError where the steps move with the batch, or the states have another batch: the calls themselves
    look at neither, and would read beyond their memory."""
    if isinstance(x.shape[int(batch_first)], torch.SymInt):
        raise RuntimeError("constraint violated: a recurrent layer runs over the axis that moves with the batch")
    torch._check(first.shape[1] == x.shape[1 - batch_first], lambda: "constraint violated: a batch of another size")
    return x.new_empty([*x.shape[:2], first.shape[-1] * (1 + bidirectional)])


def _lstm_shapes(x: torch.Tensor, hx: list[torch.Tensor], *rest: Any) -> tuple[torch.Tensor, ...]:
    return _outputs(x, hx[0], *rest[5:7]), torch.empty_like(hx[0]), torch.empty_like(hx[1])


def _shapes(x: torch.Tensor, hx: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
    return _outputs(x, hx, *rest[5:7]), torch.empty_like(hx)


def _defined(name: str, states: str, results: int, call: Callable[..., Any], shapes: Callable[..., Any]) -> Any:
    _LIBRARY.define(f"{name}(Tensor input, {states} hx, {_REST}) -> ({', '.join(['Tensor'] * results)})")
    _LIBRARY.impl(name, lambda *given: call(*given), "CompositeExplicitAutograd")
    torch.library.register_fake(f"fewbits::{name}", shapes, lib=_LIBRARY)
    return getattr(torch.ops.fewbits, name).default


_ATEN: Mapping[str, Any] = {name: getattr(torch.ops.aten, name).input
                            for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")}
_OURS = {name: _defined(name, "Tensor[]", 3, call, _lstm_shapes) if name == "lstm" else _defined(
    name, "Tensor", 2, call, _shapes) for name, call in _ATEN.items()}

PLAIN_CALLS: Mapping[Any, Any] = {ours: _ATEN[name] for name, ours in _OURS.items()}
"""ATen's call, by ours."""


class WholeLayers(TorchFunctionMode):
    """While it is entered, recurrent layers over batches of equally long sequences are one call each."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        ours = _OURS.get(getattr(func, "__name__", ""))
        states, params = 1, 2
        whole = (ours is not None and not kwargs and len(args) == 9 and args[0].ndim == 3
                 and isinstance(args[params], list | tuple)
                 and isinstance(args[states], list | tuple) == (ours is _OURS["lstm"]))
        if not whole:
            return func(*args, **(kwargs or {}))
        assert ours is not None
        given = list(args[states]) if ours is _OURS["lstm"] else args[states]
        return ours(args[0], given, list(args[params]), *args[3:])

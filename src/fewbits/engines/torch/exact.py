"""Calls on integers and truth values in torch: the call itself, which is exact, on operands of one type."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from fewbits.engines.torch.steps import Kernels
from fewbits.program.exact_calls import EXACT_CALLS, apart, common_type
from fewbits.program.ops import ExactCall, ExactConstant
from fewbits.program.ops.exact import given
from fewbits.program.program import Program

TYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in (
    "float32", "int64", "int32", "uint8", "int8", "bool")}
_NUMPY = {kind: np.dtype(name) for name, kind in TYPES.items()}


def _constant(program: Program, node: ExactConstant) -> Callable[..., torch.Tensor]:
    data = torch.from_numpy(np.array(node.data)).to(TYPES[program.values[node.name].dtype])
    return lambda: data


def _call(program: Program, node: ExactCall) -> Callable[..., torch.Tensor]:
    """As exact_calls.exactly, in torch."""
    target, dtype = EXACT_CALLS[node.call].target, TYPES[program.values[node.name].dtype]
    untouched = apart(node.call)

    def step(*values: torch.Tensor) -> torch.Tensor:
        arguments = given(node.arguments, values)
        shown = {name: _shown(value) for name, value in arguments.items() if name not in untouched}
        kind = TYPES[common_type(shown).name]
        brought = {name: value if name in untouched else _brought(value, kind) for name, value in arguments.items()}
        if node.call == "aten.to.dtype":
            return arguments["self"].to(dtype)
        if arguments.get("alpha", 1) != 1:  # a product of its own, which torch would join to the sum
            scaled = "self" if node.call == "aten.rsub.Scalar" else "other"
            brought |= {scaled: torch.as_tensor(brought[scaled], dtype=kind) * arguments["alpha"], "alpha": 1}
        return target(**brought).to(dtype)

    return step


def _shown(value: Any) -> Any:
    """An array of a tensor's type, for the rule of types to look at."""
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return np.empty(0, _NUMPY[value.dtype]) if isinstance(value, torch.Tensor) else value


def _brought(value: Any, kind: torch.dtype) -> Any:
    if isinstance(value, list | tuple):
        return [_brought(item, kind) for item in value]
    return value.to(kind) if isinstance(value, torch.Tensor) else value


KERNELS: Kernels = {
    ExactConstant: _constant,
    ExactCall: _call,
}

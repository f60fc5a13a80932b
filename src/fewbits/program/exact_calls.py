"""The calls on token numbers, positions and masks: integers and truth values, carried as what they are.

They are no quantization matter. Each is defined here in NumPy, and every engine computes the same bits: integers are
exact, and the calls that make float32 round once, as IEEE 754 says (docs/numerics.md, eq. 31). A closed table, as that
of float calls, so that a program is data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fewbits.program.float_calls import call_name
from fewbits.program.functions import lookup

aten = torch.ops.aten

Given = Mapping[str, Any]  # arrays and numbers by the names of the call's schema

DTYPES: Mapping[str, np.dtype] = {name: np.dtype(name) for name in (
    "float32", "int64", "int32", "uint8", "int8", "bool")}


@dataclass(frozen=True, eq=False)
class Exact:
    """One call. target: in torch; kernel: in NumPy, on operands of one type; floats: whether float32 may be among them
    or come out of it; elementwise: whether it broadcasts its operands and makes one number of each place."""

    target: Callable[..., Any]
    kernel: Callable[[Given], np.ndarray]
    floats: bool = True
    elementwise: bool = True


def common_type(given: Given) -> np.dtype:
    """The type that the operands of a call are brought to: float32 where one is a float, else the widest integer."""
    arrays = [value.dtype for value in _items(given) if isinstance(value, np.ndarray)]
    if any(isinstance(value, float) for value in _items(given)) or np.dtype(np.float32) in arrays:
        return np.dtype(np.float32)
    if any(isinstance(value, int) and not isinstance(value, bool) for value in _items(given)):
        arrays = [np.dtype(np.int64) if kind == np.dtype(bool) else kind for kind in arrays]
    return np.result_type(*arrays) if arrays else np.dtype(np.int64)


def exactly(call: str, given: Given, dtype: str) -> np.ndarray:
    """The definition of a call. given: by the names of its schema; dtype: of the result."""
    exact = EXACT_CALLS[call]
    untouched = apart(call)
    kind = common_type({name: value for name, value in given.items() if name not in untouched})
    brought = {name: value if name in untouched else _brought(value, kind) for name, value in given.items()}
    with np.errstate(all="ignore"):
        return np.asarray(exact.kernel(brought)).astype(DTYPES[dtype])


def apart(call: str) -> frozenset[str]:
    """Arguments of a call that stay of the type they are."""
    return _APART.get(call, _SETTINGS)


_SETTINGS = frozenset(("alpha", "dim", "keepdim", "size", "implicit", "rounding_mode", "repeats"))
_APART: Mapping[str, frozenset[str]] = {
    name: _SETTINGS | {"condition", "mask", "table", "numbers"} for name in (
        "aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar",
        "aten.masked_fill.Scalar", "lookup")}


def _items(given: Given) -> list[Any]:
    found: list[Any] = []
    for value in given.values():
        found += list(value) if isinstance(value, list | tuple) else [value]
    return found


def _brought(value: Any, kind: np.dtype) -> Any:
    if isinstance(value, list | tuple):
        return [_brought(item, kind) for item in value]
    if isinstance(value, np.ndarray):
        return value.astype(kind)
    return value if value is None or isinstance(value, str) else kind.type(value)


def _pair(function: Callable[..., Any]) -> Callable[[Given], np.ndarray]:
    return lambda given: function(given["self"], given["other"])


def _alpha(given: Given, value: Any) -> Any:
    alpha = given.get("alpha", 1)
    return value if alpha == 1 else value * value.dtype.type(alpha)


def _where(given: Given) -> np.ndarray:
    return np.where(given["condition"], given["self"], given["other"])


def _clip(given: Given) -> np.ndarray:
    x = given["self"]
    x = x if given.get("min") is None else np.maximum(x, given["min"])
    return x if given.get("max") is None else np.minimum(x, given["max"])


def _over(function: Callable[..., Any]) -> Callable[[Given], np.ndarray]:
    """Along one or several axes."""
    def kernel(given: Given) -> np.ndarray:
        dim = given.get("dim")
        axes = tuple(dim) if isinstance(dim, list | tuple) else (dim,)
        return function(given["self"], axis=axes, keepdims=bool(given.get("keepdim", False)))

    return kernel


def _argmax(given: Given) -> np.ndarray:
    return np.argmax(given["self"], axis=given["dim"], keepdims=bool(given["keepdim"]))


_COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}

_TABLE: tuple[Exact, ...] = (
    Exact(aten.add.Tensor, lambda given: given["self"] + _alpha(given, given["other"])),
    Exact(aten.sub.Tensor, lambda given: given["self"] - _alpha(given, given["other"])),
    Exact(aten.rsub.Scalar, lambda given: given["other"] - _alpha(given, given["self"])),
    Exact(aten.mul.Tensor, _pair(np.multiply)),
    Exact(aten.div.Tensor, _pair(lambda x, y: np.divide(x.astype(np.float32), np.float32(y)))),
    Exact(aten.neg.default, lambda given: np.negative(given["self"])),
    Exact(aten.abs.default, lambda given: np.abs(given["self"])),
    Exact(aten.minimum.default, _pair(np.minimum)), Exact(aten.maximum.default, _pair(np.maximum)),
    Exact(aten.clamp.default, _clip), Exact(aten.clamp_min.default, _clip), Exact(aten.clamp_max.default, _clip),
    Exact(aten.floor_divide.default, _pair(np.floor_divide), floats=False),
    Exact(aten.remainder.Scalar, _pair(np.remainder), floats=False),
    Exact(aten.remainder.Tensor, _pair(np.remainder), floats=False),
    *(Exact(getattr(getattr(aten, name), kind), _pair(function))
      for name, function in _COMPARISONS.items() for kind in ("Scalar", "Tensor")),
    Exact(aten.logical_and.default, _pair(np.logical_and)), Exact(aten.logical_or.default, _pair(np.logical_or)),
    Exact(aten.logical_xor.default, _pair(np.logical_xor)),
    Exact(aten.logical_not.default, lambda given: np.logical_not(given["self"])),
    Exact(aten.bitwise_and.Tensor, _pair(np.bitwise_and), floats=False),
    Exact(aten.bitwise_or.Tensor, _pair(np.bitwise_or), floats=False),
    Exact(aten.bitwise_and.Scalar, _pair(np.bitwise_and), floats=False),
    Exact(aten.where.self, _where), Exact(aten.where.ScalarSelf, _where), Exact(aten.where.ScalarOther, _where),
    Exact(aten.where.Scalar, _where),
    Exact(aten.masked_fill.Scalar, lambda given: np.where(given["mask"], given["value"], given["self"])),
    Exact(aten.to.dtype, lambda given: given["self"]),
    Exact(aten.cumsum.default, lambda given: np.cumsum(given["self"], axis=given["dim"], dtype=np.int64),
          floats=False, elementwise=False),
    Exact(aten.sum.dim_IntList, _over(lambda x, **given: x.sum(dtype=np.int64, **given)), floats=False,
          elementwise=False),
    Exact(aten.any.dim, _over(np.any), floats=False, elementwise=False),
    Exact(aten.all.dim, _over(np.all), floats=False, elementwise=False),
    Exact(aten.amax.default, _over(np.max), floats=False, elementwise=False),
    Exact(aten.amin.default, _over(np.min), floats=False, elementwise=False),
    Exact(aten.argmax.default, _argmax, floats=False, elementwise=False),
    Exact(aten.cat.default, lambda given: np.concatenate(given["tensors"], axis=given["dim"]), elementwise=False),
    Exact(lookup, lambda given: given["table"][given["numbers"]], floats=False, elementwise=False),
)

EXACT_CALLS: Mapping[str, Exact] = {call_name(exact.target): exact for exact in _TABLE}
"""Every call on integers and truth values, by its name in programs."""

EXACT_ON_FLOATS = frozenset(exact.target for exact in _TABLE if exact.floats)
"""The calls that take float32, or make it, to the same bits on every engine."""

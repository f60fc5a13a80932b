"""The operators that a .pt2 file may name: a closed list, known before anything of the file is run.

They are those that the graph has a row or a folding rule for, those that float islands hold, and those that make
constants, positions and masks. Each computes new tensors from its operands, or views of them, and touches nothing else.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fewbits.capture.synonyms import SYNONYMS, in_place
from fewbits.fold.decompose import TAKEN_APART
from fewbits.fold.pieces import COMPARISONS
from fewbits.graph.operators import OPERATORS
from fewbits.program.exact_calls import EXACT_CALLS
from fewbits.program.float_calls import FLOAT_CALLS

aten = torch.ops.aten

_ON_NUMBERS = (
    aten.arange.default, aten.arange.start, aten.arange.start_step, aten.zeros.default, aten.ones.default,
    aten.full.default, aten.scalar_tensor.default, aten.zeros_like.default, aten.ones_like.default,
    aten.full_like.default, aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.linspace.default,
    aten.eye.default, aten.tril.default, aten.triu.default, aten.where.self, aten.masked_fill.Scalar,
    aten.masked_fill.Tensor, aten.logical_not.default, aten.logical_and.default, aten.logical_or.default,
    aten.bitwise_not.default, aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.__and__.Tensor, aten.__or__.Tensor,
    aten.eq.Tensor, aten.ne.Tensor, aten.lt.Tensor, aten.le.Tensor, aten.gt.Tensor, aten.ge.Tensor,
    aten.eq.Scalar, aten.ne.Scalar, aten.lt.Scalar, aten.le.Scalar, aten.gt.Scalar, aten.ge.Scalar,
    aten.add.Scalar, aten.sub.Scalar, aten.mul.Scalar, aten.div.Scalar, aten.div.Tensor_mode, aten.div.Scalar_mode,
    aten.rsub.Tensor, aten.floor_divide.default, aten.remainder.Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar,
    aten.cumsum.default, aten.sum.default, aten.max.default, aten.min.default, aten.any.dim, aten.all.dim,
    aten.outer.default, aten.repeat.default,
    aten.expand_as.default, aten.view_as.default, aten.type_as.default, aten.to.dtype_layout, aten.to.device,
    aten.movedim.int, aten.numpy_T.default, aten.meshgrid.indexing, aten.index_select.default, aten.index.Tensor,
    aten.detach_.default,  # of torch.tensor([1.0]) in a forward; it writes no number
)
"""Beside the rows and the rules: what networks compute on constants, positions and masks."""

_ASSERTIONS = frozenset(f"torch.ops.aten.{name}" for name in (
    "_assert_scalar.default", "_assert_async.msg", "_assert_tensor_metadata.default", "sym_constrain_range.default",
    "sym_constrain_range_for_size.default"))
"""What torch.export checks with; they give nothing, and are left out."""

_ON_SIZES = {f"_operator.{name}": getattr(operator, name) for name in (
    "getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "ge", "le", "gt", "lt", "eq", "ne", "and_")}


def _named(call: torch._ops.OpOverload) -> str:
    return f"torch.ops.{call}"


_PURE = tuple(call for call in (
    *(target for row in OPERATORS for target in row.targets), *SYNONYMS, *TAKEN_APART, *COMPARISONS,
    *FLOAT_CALLS.values(), *(exact.target for exact in EXACT_CALLS.values()), *_ON_NUMBERS)
    if isinstance(call, torch._ops.OpOverload))
_WRITING = tuple(call for pure in _PURE if (call := in_place(pure)) is not None)
"""Calls that write into their first argument; the graph makes the ones above of them, so that none is run."""

_KNOWN: Mapping[str, Callable[..., Any]] = _ON_SIZES | {_named(call): call for call in (*_PURE, *_WRITING)}


def known(text: Any) -> Callable[..., Any] | None:
    """The operator of that name, or None where a file may not name it."""
    return _KNOWN.get(text) if isinstance(text, str) else None


def is_assertion(text: Any) -> bool:
    """Whether the name is of a check on sizes, which computes nothing."""
    return isinstance(text, str) and text in _ASSERTIONS

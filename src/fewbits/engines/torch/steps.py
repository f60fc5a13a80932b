"""Steps that the torch kernels of several families share. A kernel prepares a node's constants once and gives the step
that is run on each batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fewbits.engines.torch.fixed_point import Rescale, rescaler
from fewbits.program import ops as op
from fewbits.program import rescale
from fewbits.program.fixed_point import Fixed
from fewbits.program.ops import ProgramNode
from fewbits.program.program import Program

_TORCH = {np.dtype(np.uint8): torch.uint8, np.dtype(np.int8): torch.int8, np.dtype(np.int32): torch.int32,
          np.dtype(np.int16): torch.int16, np.dtype(np.uint16): torch.uint16}

TorchKernel = Callable[..., Any]
"""From the tensors a node reads to the one it writes; of a node that writes several, to a tuple of them."""

Prepare = Callable[[Program, Any], TorchKernel]
"""From a node, its kernel."""

Kernels = Mapping[type[ProgramNode], Prepare]
"""By the class of a node, what makes its step."""


def exact_type(program: Program, node: ProgramNode) -> torch.dtype:
    """The floating type in which every partial sum of the node is exact."""
    return torch.float32 if op.accumulator_bound(program, node).magnitude < 2**24 else torch.float64


def rounding_of(program: Program, node: ProgramNode) -> str:
    """Which of `fixed_point.ROUNDINGS` brings the integers of a node to codes."""
    rescaling = op.record_of(node).rescaling
    assert rescaling is not None, "only what has a factor is rounded by it"
    return rescale.rounding(program.profile, rescaling.role)


def code_type(program: Program, name: str) -> torch.dtype:
    return _TORCH[program.encoding(name).format.dtype]


def flat_margins(margins: Sequence[tuple[int, int]]) -> list[int]:
    """Margins as F.pad takes them: last axis first."""
    return [size for pair in reversed(margins) for size in pair]


def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(np.array(array)).to(dtype)


def saturating(program: Program, node: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """clip(half_even(v) + zero_point, low, high), as the reference does (program/ops/steps.py)."""
    zero, dtype = int(program.encoding(node.name).zero_point), code_type(program, node.name)
    return lambda v: v.round_().add_(zero).clamp_(node.low, node.high).to(dtype)


def rescaling(program: Program, node: Any, factor: rescale.Factor) -> Rescale:
    """Exact integers, of a floating or integer type, to codes, as the reference does."""
    if isinstance(factor, Fixed):
        zero, dtype = int(program.encoding(node.name).zero_point), code_type(program, node.name)
        rounded = rescaler(factor, rounding_of(program, node))
        return lambda acc: rounded(acc).add_(zero).clamp_(node.low, node.high).to(dtype)
    scale, saturate = tensor(factor), saturating(program, node)
    return lambda acc: saturate(acc.float().mul_(scale))


def regridding(program: Program, source: str, node: Any) -> TorchKernel:
    """Codes of `source` on the grid of what the node writes, as the reference does."""
    x, y = program.encoding(source), program.encoding(node.name)
    scale_x, zero_x, scale_y = tensor(x.scale), int(x.zero_point), tensor(y.scale)
    if program.profile.rescaling != "float":
        finish = rescaling(program, node, rescale.regrid(x, y))
        return lambda codes: finish(codes.long() - zero_x)
    saturate = saturating(program, node)
    return lambda codes: saturate((codes.float() - zero_x) * scale_x / scale_y)

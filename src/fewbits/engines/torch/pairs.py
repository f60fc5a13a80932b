"""Two values joined number by number, in torch."""

import numpy as np
import torch

from fewbits.engines.torch.fixed_point import rescaler
from fewbits.engines.torch.steps import (
    Kernels,
    TorchKernel,
    code_type,
    regridding,
    rescaling,
    rounding_of,
    saturating,
    tensor,
)
from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.program import rescale
from fewbits.program.fixed_point import Fixed
from fewbits.program.ops.pairs import add_codes, is_fused
from fewbits.program.program import Program


def _add(program: Program, node: op.Add | op.Sub) -> TorchKernel:
    if program.profile.addition == "integer":
        return _add_integers(program, node)
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    if is_fused(program, node):
        codes_a, codes_b = (np.arange(e.format.low, e.format.high + 1).astype(e.format.dtype)
                            for e in (first, second))
        grid = np.broadcast_arrays(codes_a[:, None], codes_b[None, :])
        table = tensor(add_codes(program, node, *grid), code_type(program, node.name)).reshape(-1)
        low_a, low_b, width = first.format.low, second.format.low, codes_b.size
        return lambda a, b: table[((a.int() - low_a) * width + (b.int() - low_b)).reshape(-1)].reshape(a.shape)
    scales = [(tensor(e.scale), int(e.zero_point)) for e in (first, second)]
    (scale_a, zero_a), (scale_b, zero_b) = scales
    scale_y, saturate = tensor(y.scale), saturating(program, node)
    join = torch.sub if isinstance(node, op.Sub) else torch.add
    return lambda a, b: saturate(join((a.float() - zero_a) * scale_a, (b.float() - zero_b) * scale_b) / scale_y)


def _add_integers(program: Program, node: op.Add | op.Sub) -> TorchKernel:
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    rounding = rounding_of(program, node)
    raised, onto_a, onto_b, from_sum = rescale.addition(program.profile, first, second, y)
    rescale_a, rescale_b = rescaler(onto_a, rounding), rescaler(onto_b, rounding)
    finish = rescaling(program, node, from_sum)
    zero_a, zero_b = int(first.zero_point), int(second.zero_point)
    join = torch.sub if isinstance(node, op.Sub) else torch.add
    return lambda a, b: finish(join(rescale_a((a.long() - zero_a) << raised), rescale_b((b.long() - zero_b) << raised)))


def _mul(program: Program, node: op.Mul) -> TorchKernel:
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    zero_a, zero_b, zero_y = int(first.zero_point), int(second.zero_point), int(y.zero_point)
    factor = rescale.product(program.profile, first, second, y)
    if isinstance(factor, Fixed):
        finish = rescaling(program, node, factor)
        return lambda a, b: finish((a.long() - zero_a) * (b.long() - zero_b))
    multiplier, dtype = tensor(factor), code_type(program, node.name)

    def step(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        v = ((a.float() - zero_a) * (b.float() - zero_b)) * multiplier + zero_y  # of 12 bits: exact
        return v.round_().clamp_(node.low, node.high).to(dtype)

    return step


def _div(program: Program, node: op.Div) -> TorchKernel:
    scale, saturate = tensor(program.encoding(node.name).scale), saturating(program, node)
    (scale_a, zero_a), (scale_b, zero_b) = [(tensor(e.scale), int(e.zero_point)) for e in (
        program.encoding(node.first), program.encoding(node.second))]

    def step(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        divisor = (b.float() - zero_b) * scale_b
        divisor = torch.where(divisor == 0, constants.NO_DIVISOR, divisor)
        return saturate((a.float() - zero_a) * scale_a / divisor / scale)

    return step


def _max_or_min(program: Program, node: op.Max | op.Min) -> TorchKernel:
    first, second = (regridding(program, name, node) for name in (node.first, node.second))
    choose = torch.minimum if isinstance(node, op.Min) else torch.maximum
    return lambda a, b: choose(first(a), second(b))


def _choose(program: Program, node: op.Choose) -> TorchKernel:
    first, second = (regridding(program, name, node) for name in (node.first, node.second))
    return lambda condition, a, b: torch.where(condition, first(a), second(b))


KERNELS: Kernels = {
    op.Choose: _choose,
    op.Add: _add,
    op.Sub: _add,
    op.Mul: _mul,
    op.Div: _div,
    op.Max: _max_or_min,
    op.Min: _max_or_min,
}

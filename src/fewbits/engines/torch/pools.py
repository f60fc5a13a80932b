"""Windows and axes made one number each, in torch."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from fewbits.engines.torch.steps import (
    Kernels,
    TorchKernel,
    code_type,
    exact_type,
    flat_margins,
    regridding,
    rescaling,
    saturating,
    tensor,
)
from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.program import rescale
from fewbits.program.program import Program

_POOLS: dict[int, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    2: (F.max_pool2d, F.avg_pool2d), 3: (F.max_pool3d, F.avg_pool3d)}
"""The largest and the sum, by the number of axes."""


def _max_pool(program: Program, node: op.MaxPool) -> TorchKernel:
    pool = _POOLS[len(node.kernel)][0]
    dtype = torch.float32 if program.is_float(node.name) else code_type(program, node.name)

    def step(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x.float(), flat_margins(node.padding), value=-torch.inf)
        return pool(x, node.kernel, node.stride, 0, node.dilation).to(dtype)

    return step


def _average_pool(program: Program, node: op.AveragePool) -> TorchKernel:
    x, sums = program.encoding(node.input), _window_sums(program, node)
    if program.profile.rescaling != "float":
        return _average_in_place(program, node, sums)
    multiplier = tensor(constants.pool_multiplier(x, program.encoding(node.name), node.counts))
    saturate = saturating(program, node)
    return lambda x: saturate(sums(x).float().mul_(multiplier))


def _window_sums(program: Program, node: op.AveragePool) -> TorchKernel:
    """Exact sums of the numbers in each window."""
    dtype, zero = exact_type(program, node), int(program.encoding(node.input).zero_point)
    pool = _POOLS[len(node.kernel)][1]
    margins = flat_margins(node.padding)
    return lambda x: pool(F.pad(x.to(dtype) - zero, margins), node.kernel, node.stride, divisor_override=1)


def _average_in_place(program: Program, node: op.AveragePool, sums: TorchKernel) -> TorchKernel:
    finish, counts = regridding(program, node.input, node), tensor(node.counts, torch.int64)
    half, zeros = counts // 2, counts * int(program.encoding(node.input).zero_point)

    def step(x: torch.Tensor) -> torch.Tensor:
        total = sums(x).long() + zeros  # of codes, not of numbers
        return finish(torch.where(total > 0, total + half, total - half).div(counts, rounding_mode="trunc"))

    return step


def _mean(program: Program, node: op.Mean) -> TorchKernel:
    x = program.encoding(node.input)
    count = program.count(node.input, node.axes)
    factor = rescale.mean(program.profile, x, program.encoding(node.name), count)
    dtype, zero = exact_type(program, node), int(x.zero_point)
    finish = rescaling(program, node, factor)
    return lambda x: finish((x.to(dtype) - zero).sum(node.axes, node.keep))


KERNELS: Kernels = {
    op.MaxPool: _max_pool,
    op.AveragePool: _average_pool,
    op.Mean: _mean,
}

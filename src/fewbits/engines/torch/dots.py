"""Sums of products in torch: exact in the floating type that the bound of their sums allows."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from fewbits.engines.torch.steps import Kernels, TorchKernel, exact_type, flat_margins, rescaling, tensor
from fewbits.program import ops as op
from fewbits.program import rescale
from fewbits.program.program import Program


def _conv(program: Program, node: op.Conv) -> TorchKernel:
    dtype, zero = exact_type(program, node), int(program.encoding(node.input).zero_point)
    weight, bias = _weight(node, dtype)
    finish = _finish(program, node, (1, -1, *[1] * len(node.stride)))
    convolve: Callable[..., torch.Tensor] = (F.conv1d, F.conv2d, F.conv3d)[len(node.stride) - 1]
    even = all(before == after for before, after in node.padding)
    margins = tuple(before for before, _ in node.padding) if even else 0

    def step(x: torch.Tensor) -> torch.Tensor:
        x = x.to(dtype) - zero
        if not even:
            x = F.pad(x, flat_margins(node.padding))
        return finish(convolve(x, weight, bias, node.stride, margins, node.dilation, node.groups))

    return step


def _weight(node: op.Conv | op.Linear, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
    encoding = node.weight.encoding
    w = tensor(node.weight.codes, dtype)  # exact, in the same float type as their sums
    if encoding.zero_point.any():
        w -= tensor(encoding.block.expand(encoding.zero_point, node.weight.codes.shape), dtype)
    return w, None if node.bias is None else tensor(node.bias, dtype)


def _linear(program: Program, node: op.Linear) -> TorchKernel:
    dtype, zero = exact_type(program, node), int(program.encoding(node.input).zero_point)
    weight, bias = _weight(node, dtype)
    finish = _finish(program, node, (-1,))
    return lambda x: finish(F.linear(x.to(dtype) - zero, weight, bias))


def _matmul(program: Program, node: op.MatMul) -> TorchKernel:
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    zero_a, zero_b, dtype = int(first.zero_point), int(second.zero_point), exact_type(program, node)
    finish = rescaling(program, node, rescale.matrix_product(program.profile, first, second, y))
    return lambda a, b: finish((a.to(dtype) - zero_a) @ (b.to(dtype) - zero_b))


def _finish(program: Program, node: op.Conv | op.Linear, shape: tuple[int, ...]) -> TorchKernel:
    """Accumulators with their bias to codes. shape: of a per-channel constant."""
    if program.is_accumulator(node.name):
        return lambda acc: acc.to(torch.int32)
    x, y = program.encoding(node.input), program.encoding(node.name)
    factor = rescale.dot(program.profile, x, node.weight.encoding, y)
    factor = factor.reshape(shape) if factor.ndim else factor
    return rescaling(program, node, factor)


KERNELS: Kernels = {
    op.Conv: _conv,
    op.Linear: _linear,
    op.MatMul: _matmul,
}

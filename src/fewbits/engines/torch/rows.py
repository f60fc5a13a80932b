"""Operators on whole rows, in torch."""

import numpy as np
import torch

from fewbits.engines.torch.steps import Kernels, TorchKernel, saturating, tensor
from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.program.ops.rows import lookup
from fewbits.program.program import Program


def _softmax(program: Program, node: op.Softmax) -> TorchKernel:
    y = program.encoding(node.name)
    table = tensor(constants.exponentials(program.encoding(node.input), node.factor), torch.int64)
    scale, saturate = tensor(y.scale), saturating(program, node)
    known = () if node.mask is None else (torch.from_numpy(np.array(node.mask)) != 0,)
    lowest = program.encoding(node.input).format.low

    def step(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        q, mask = x.long() - lowest, next(iter(given or known), None)
        if mask is None:
            powers = table[q.amax(-1, keepdim=True) - q]
        else:
            some = mask.any(-1, keepdim=True)
            if node.empty == "uniform":
                q = torch.where(some, q, 0)
            seen = mask if node.empty == "zero" else mask | ~some
            powers = table[torch.where(seen, torch.where(seen, q, -1).amax(-1, keepdim=True) - q, len(table) - 1)]
        total = powers.sum(-1, keepdim=True).clamp_(min=1)
        return saturate(powers.float() / total.float() / scale)

    return step


def _log_softmax(program: Program, node: op.LogSoftmax) -> TorchKernel:
    x, y, unit = program.encoding(node.input), program.encoding(node.name), 2**constants.SOFTMAX_BITS
    powers, below = tensor(constants.exponentials(x, 1.0), torch.int64), tensor(constants.steps_below(x), torch.int64)
    whole, part = (tensor(table, torch.int64) for table in constants.logarithms())
    fine, scale, saturate = 2.0**-constants.LOG_BITS, tensor(y.scale), saturating(program, node)

    def step(x: torch.Tensor) -> torch.Tensor:
        q = x.long()
        steps = q.amax(-1, keepdim=True) - q
        total = powers[steps].sum(-1, keepdim=True)
        high = total // unit
        logarithm = whole[high] + part[(total // high - unit) // 2**10]
        return saturate(-(below[steps] + logarithm).float() * fine / scale)

    return step


def _layer_norm(program: Program, node: op.LayerNorm) -> TorchKernel:
    axes = tuple(range(-node.axes, 0))
    y, length = program.encoding(node.name), program.count(node.input, axes)
    epsilon = float(constants.integer_epsilon(program.encoding(node.input), node.epsilon, length))
    gain, shift, scale, saturate = tensor(node.gain), tensor(node.shift), tensor(y.scale), saturating(program, node)

    zero = int(program.encoding(node.input).zero_point) if node.about == "zero" else 0

    def step(x: torch.Tensor) -> torch.Tensor:
        q = x.long() - zero
        total, squares = q.sum(axes, keepdim=True), (q * q).sum(axes, keepdim=True)
        total = total if node.about == "mean" else torch.zeros_like(total)
        # In float64: with MKL torch's float32 root is one unit in the last place off for one number in six. No float32
        # has a root so near to half way between two of them that float64's own error could tell (eq. 14).
        deviation = ((length * squares - total * total).float() + epsilon).double().sqrt_().float()
        return saturate(((length * q - total).float() / deviation * gain + shift) / scale)

    return step


def _embedding(program: Program, node: op.Embedding) -> TorchKernel:
    return lambda numbers: torch.from_numpy(lookup(program, node, numbers.numpy()))


KERNELS: Kernels = {
    op.LogSoftmax: _log_softmax,
    op.Softmax: _softmax,
    op.LayerNorm: _layer_norm,
    op.Embedding: _embedding,
}

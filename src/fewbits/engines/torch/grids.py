"""Operators that bring numbers to codes, to other codes, and back, in torch."""

import torch

from fewbits.engines.torch.steps import Kernels, TorchKernel, code_type, regridding, tensor
from fewbits.numerics import affine
from fewbits.numerics.rounding import half_away, half_even
from fewbits.program import ops as op
from fewbits.program.program import Program


def _quantize(program: Program, node: op.Quantize) -> TorchKernel:
    y, dtype = program.encoding(node.name), code_type(program, node.name)
    scale, rounding = tensor(y.scale), half_even if program.profile.entering == "half_even" else half_away
    return lambda x: affine.encode(x, scale, int(y.zero_point), y.format.low, y.format.high, rounding).to(dtype)


def _constant(program: Program, node: op.Constant) -> TorchKernel:
    codes = tensor(node.data.codes, code_type(program, node.name))
    return lambda: codes


def _requantize(program: Program, node: op.Requantize) -> TorchKernel:
    return regridding(program, node.input, node)


def _concat(program: Program, node: op.Concat) -> TorchKernel:
    steps = [regridding(program, name, node) for name in node.inputs]

    def joined(*inputs: torch.Tensor) -> torch.Tensor:
        batch = max(len(x) for x in inputs)
        return torch.cat([step(x.expand(batch, *x.shape[1:])) for step, x in zip(steps, inputs, strict=True)],
                         node.axis)

    return joined


def _dequantize(program: Program, node: op.Dequantize) -> TorchKernel:
    encoding = program.encoding(node.input)
    return lambda x: torch.from_numpy(encoding.decode(x.numpy()))


KERNELS: Kernels = {
    op.Quantize: _quantize,
    op.Constant: _constant,
    op.Requantize: _requantize,
    op.Concat: _concat,
    op.Dequantize: _dequantize,
}

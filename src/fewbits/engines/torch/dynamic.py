"""Dot products with dynamic quantization, in torch: their sums of integers are exact."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from fewbits.engines.torch.steps import Kernels, TorchKernel, exact_type, flat_margins, tensor
from fewbits.program import dynamic
from fewbits.program import ops as op
from fewbits.program.program import Program


def _dynamic_linear(program: Program, node: op.DynamicLinear) -> TorchKernel:
    return _dynamic(program, node, F.linear, (-1,))


def _dynamic_conv(program: Program, node: op.DynamicConv) -> TorchKernel:
    rank, margins = len(node.stride), flat_margins(node.padding)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]

    def sums(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return convolve(F.pad(x, margins), w, None, node.stride, 0, node.dilation, node.groups)

    return _dynamic(program, node, sums, (-1, *[1] * rank))


def _dynamic(program: Program, node: op.DynamicConv | op.DynamicLinear,
             sums: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> TorchKernel:
    """As reference._dynamic; sums of integers are exact in the type that eq. 9 allows."""
    weight, dtype = program.constant(node.weight), exact_type(program, node)

    def step(x: torch.Tensor, w: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
        grid = dynamic.grid_of(x.numpy())
        if grid.scale:
            steps = (x / tensor(np.array(grid.scale))).round_().add_(grid.zero_point)
            centred = steps.clamp_(dynamic.CODES.low, dynamic.CODES.high).sub_(grid.zero_point)
        else:
            centred = torch.zeros_like(x)
        acc = sums(centred.to(dtype), w.to(dtype)).float() + 0.0  # an integer has no -0
        y = acc * tensor(dynamic.result_scale(grid, weight)).reshape(shape)
        return y + bias[0].reshape(shape) if bias else y

    return step


KERNELS: Kernels = {
    op.DynamicConv: _dynamic_conv,
    op.DynamicLinear: _dynamic_linear,
}

"""Operators that move numbers, in torch."""

import torch
import torch.nn.functional as F

from fewbits.engines.torch.steps import Kernels, TorchKernel, flat_margins
from fewbits.program import ops as op
from fewbits.program.program import Program


def _gather(program: Program, node: op.Gather) -> TorchKernel:
    indices = torch.tensor(node.indices)
    return lambda x: x.index_select(node.axis, indices)


def _reshape(program: Program, node: op.Reshape) -> TorchKernel:
    return lambda x: x.reshape(node.of(x.shape))


def _transpose(program: Program, node: op.Transpose) -> TorchKernel:
    return lambda x: x.permute(node.permutation)


def _slice(program: Program, node: op.Slice) -> TorchKernel:
    return lambda x: x[(slice(None),) * node.axis + (slice(node.start, node.stop, node.step),)]


def _pad(program: Program, node: op.Pad) -> TorchKernel:
    plain = program.values[node.input].encoding is None
    zero = 0 if plain else int(program.encoding(node.input).zero_point)
    return lambda x: F.pad(x, flat_margins(node.margins), value=zero)


KERNELS: Kernels = {
    op.Gather: _gather,
    op.Reshape: _reshape,
    op.Transpose: _transpose,
    op.Slice: _slice,
    op.Pad: _pad,
}

"""Tables over all codes, and comparisons with thresholds, in torch."""

import torch

from fewbits.engines.torch.steps import Kernels, TorchKernel, code_type, tensor
from fewbits.program import ops as op
from fewbits.program.program import Program


def _table(program: Program, node: op.Table) -> TorchKernel:
    table = tensor(node.table, code_type(program, node.name))
    flat, rows, lowest = table.reshape(-1), len(node.table), program.encoding(node.input).format.low

    def step(x: torch.Tensor) -> torch.Tensor:
        index = x.int() - lowest
        if rows > 1:
            index = index + table.shape[1] * torch.arange(rows, dtype=torch.int32).reshape(-1, *[1] * (x.ndim - 2))
        return flat[index.reshape(-1)].reshape(x.shape)

    return step


def _threshold(program: Program, node: op.Threshold) -> TorchKernel:
    sums = program.values[node.input].encoding is not None
    dtype = torch.int64 if sums else torch.float32
    shape = [1] * len(program.values[node.name].shape)
    shape[node.axis] = len(node.thresholds)
    direction, levels = tensor(node.direction, dtype).reshape(shape), tensor(node.levels, torch.uint8)
    rows = [tensor(column, dtype).reshape(shape) for column in node.thresholds.T]

    def step(x: torch.Tensor) -> torch.Tensor:
        directed = x.to(dtype) * direction
        reached = torch.zeros(x.shape, dtype=torch.int32)
        for row in rows:
            reached += directed >= row
        return levels[reached.reshape(-1)].reshape(x.shape)

    return step


KERNELS: Kernels = {
    op.Table: _table,
    op.Threshold: _threshold,
}

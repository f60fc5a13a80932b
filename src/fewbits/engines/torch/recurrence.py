"""Recurrence in torch: its body's own kernels, once for each step."""

from collections.abc import Mapping

import torch

from fewbits.engines.torch.steps import Kernels, Prepare, TorchKernel, code_type
from fewbits.program import ops as op
from fewbits.program.ops import reads
from fewbits.program.ops.recurrence import Carried, loop
from fewbits.program.program import Program


def kernels(known: Mapping[type[op.ProgramNode], Prepare]) -> Kernels:
    """The kernel, which takes those of the nodes in a body from `known`."""

    def prepared(program: Program, node: op.Recurrence) -> TorchKernel:
        steps = [(each.name, reads(each), known[type(each)](program, each)) for each in node.body]
        names = reads(node)

        def zero(state: Carried, batch: int) -> torch.Tensor:
            value = program.values[state.name]
            shape = (batch, *(size or 0 for size in value.shape[1:]))
            if value.encoding is None:
                return torch.zeros(shape, dtype=getattr(torch, value.dtype))
            return torch.full(shape, int(value.encoding.zero_point), dtype=code_type(program, state.name))

        def step(inner: dict[str, torch.Tensor]) -> None:
            for name, operands, kernel in steps:
                made = kernel(*(inner[each] for each in operands))
                assert isinstance(made, torch.Tensor), "only a recurrence makes several"
                inner[name] = made

        def run(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values = dict(zip(names, given, strict=True))
            batch = values[node.entries[0].sequence].shape[1 - node.axis]
            return loop(node, values, lambda state: zero(state, batch), step, lambda x, at: x.select(node.axis, at),
                        lambda made: torch.stack(made, node.axis))

        return run

    return {op.Recurrence: prepared}

"""The fourth: its torch kernel."""

import torch
from toy_record import Hypotenuse

from fewbits.engines.torch.steps import Kernels, TorchKernel, saturating, tensor
from fewbits.program.program import Program


def _hypotenuse(program: Program, node: Hypotenuse) -> TorchKernel:
    saturate, scale = saturating(program, node), tensor(program.encoding(node.name).scale)
    (scale_a, zero_a), (scale_b, zero_b) = [(tensor(e.scale), int(e.zero_point)) for e in (
        program.encoding(node.first), program.encoding(node.second))]

    def step(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        first, second = (a.float() - zero_a) * scale_a, (b.float() - zero_b) * scale_b
        return saturate((first * first + second * second).sqrt_() / scale)

    return step


KERNELS: Kernels = {Hypotenuse: _hypotenuse}

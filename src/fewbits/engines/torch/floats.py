"""Constants and calls of float islands, in torch: its float32."""

from fewbits.engines.torch.steps import Kernels, TorchKernel, tensor
from fewbits.program import ops as op
from fewbits.program.float_calls import called
from fewbits.program.program import Program


def _float_constant(program: Program, node: op.FloatConstant) -> TorchKernel:
    data = tensor(node.data)
    return lambda: data


def _float_call(program: Program, node: op.FloatCall) -> TorchKernel:
    return lambda *values: called(node.name, node.call, node.arguments, values)


KERNELS: Kernels = {
    op.FloatConstant: _float_constant,
    op.FloatCall: _float_call,
}

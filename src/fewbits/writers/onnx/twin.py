"""A Program's float twin as ONNX: the same graph without quantizers, to measure against.

Weights are the dequantized ones and ReLUs stand where the program bounds its codes, so the twin costs what
the float model costs in the same engine, operator for operator. Its numbers are near the original's, not equal.
"""

from onnx import TensorProto

from fewbits.program.program import Program
from fewbits.writers.onnx import FORMS
from fewbits.writers.onnx.builder import OnnxBuilder, output_name


def float_onnx_bytes(program: Program) -> bytes:
    """The float twin, with the input and output names of `onnx_bytes`."""
    builder = OnnxBuilder(program)
    for node in program.nodes:
        FORMS[type(node)].twin(builder, node)
    outputs = {}
    for name in program.outputs:
        outputs[builder.node("Identity", [name], output_name(name))] = TensorProto.FLOAT
    return b"".join(builder.model(outputs, {output_name(name): name for name in program.outputs}))

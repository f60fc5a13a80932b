"""A Program as ONNX: with integer operators, or as a float graph between quantizers (QDQ).

Both forms are chosen so that ONNX Runtime computes the Program's codes: the integer form at every
optimisation level, QDQ where its quantizers are fused (the default level). Why each operator takes the
form it takes is in docs/numerics.md, "What engines compute".
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import numpy as np
from onnx import TensorProto

from fewbits.errors import VerificationError
from fewbits.numerics.encoding import Quantized
from fewbits.numerics.packing import packed_bytes
from fewbits.options import options_checked
from fewbits.program import ops as op
from fewbits.program.program import Program
from fewbits.writers.onnx import FORMS
from fewbits.writers.onnx.builder import LARGEST, OnnxBuilder, output_name, too_large
from fewbits.writers.onnx.decode import only_inside
from fewbits.writers.onnx.exact import ELEMENTS

OnnxForm = Literal["integer", "qdq"]

_ELEMENT = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int8): TensorProto.INT8,
            np.dtype(np.int16): TensorProto.INT16}


def weight_bytes(program: Program) -> int:
    """Bytes of its weights and tables, packed: the least that its file takes."""
    held = [value for node in program.everything for value in vars(node).values() if isinstance(value, Quantized)]
    return sum(packed_bytes(value.codes.size, value.encoding.format) for value in held)


@options_checked
def onnx_bytes(program: Program, form: OnnxForm = "integer", every_code: bool = False, *,
               portable: Collection[str] = (), metadata: Mapping[str, str] | None = None) -> bytes:
    """What `onnx_pieces` gives, in one."""
    return b"".join(onnx_pieces(program, form, every_code, portable=portable, metadata=metadata))


@options_checked
def onnx_pieces(program: Program, form: OnnxForm = "integer", every_code: bool = False, *,
                portable: Collection[str] = (), metadata: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """The program as a serialized ONNX model, piece by piece, so that its weights are in memory once.

    Inputs bear the program's input names and are float32; outputs are the model's, float32, named after
    the program's output values. every_code: a debug copy that also returns every value that is no accumulator, codes
    or floats, under its own name; but for constants that stand in their DequantizeLinear. portable: names of nodes that
    are written so that every x86-64 computes them alike (engines/exactness.py): weights as uint8 with zero point 128,
    sums of two tensors as a table. metadata: what the file says of itself. Raises VerificationError for
    a profile whose arithmetic ONNX does not have, or a float call that it does not, and for more than 2 GB.
    """
    if program.profile.engine != "onnxruntime":
        raise VerificationError(f"profile {program.profile.name} rounds in integers as no ONNX operator does: lower "
                                "with profile onnxruntime, onnxruntime-portable or tensorrt to export")
    if weight_bytes(program) > LARGEST:
        raise too_large()
    builder = OnnxBuilder(program, portable)
    # A value that is an output gives its own name to the dequantized tensor; codes keep `<name>` inside.
    hidden = {node.name for node in program.nodes if isinstance(node, op.Constant) and only_inside(program, node.name)}
    nodes = [node for node in program.nodes if node.name not in hidden]
    for node in nodes:
        forms = FORMS[type(node)]
        (forms.integer if form == "integer" else forms.qdq)(builder, node)
    outputs: dict[str, int] = {}
    shapes: dict[str, str] = {}
    for name in program.outputs:
        real = output_name(name)
        plain = program.values[name].encoding is None
        if plain:
            builder.node("Identity", [name], real)
        elif not program.is_accumulator(name):
            builder.dequantize(name, real)
        outputs[real] = ELEMENTS[program.values[name].dtype] if plain else TensorProto.FLOAT
        shapes[real] = name
    if every_code:
        for name in (name for node in nodes for name in node.written):
            if program.values[name].encoding is None:
                outputs[name] = ELEMENTS[program.values[name].dtype]
            elif not program.is_accumulator(name):
                outputs[name] = _ELEMENT[program.encoding(name).format.dtype]
    return builder.model(outputs, shapes, metadata)

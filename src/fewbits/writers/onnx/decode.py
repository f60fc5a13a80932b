"""What Dequantize becomes in ONNX: activations, sums, and weights in any format and blocks, bit for bit."""

from typing import Any

import numpy as np
import onnx
from onnx import helper

from fewbits.numerics.encoding import Quantized
from fewbits.numerics.formats import Int
from fewbits.numerics.packing import pack
from fewbits.program import ops as op
from fewbits.program.program import Program
from fewbits.writers.onnx.builder import OnnxBuilder

_PRODUCTS = ("aten.matmul.default", "aten.bmm.default")
"""Float products of two values. Of two DequantizeLinear and a MatMul ONNX Runtime makes an integer product that gives
floats, which takes longer than the float one and takes no factor behind it in; a Sum of one number hides them."""

_FOUR_BITS = {True: onnx.TensorProto.INT4, False: onnx.TensorProto.UINT4}


def emit_dequantize(b: OnnxBuilder, node: op.Dequantize) -> None:
    """float32(q − z) · s, whatever the codes are."""
    source = b.constant_node(node.input)
    if source is not None:
        _decode(b, node, source.data)
        return
    encoding = b.program.encoding(node.input)
    if not b.program.is_accumulator(node.input):
        readers = b.program.readers(node.name)
        if any(isinstance(reader, op.FloatCall) and reader.call in _PRODUCTS for reader in readers):
            b.node("Sum", [b.dequantize(node.input, b.name(node.name, "decoded"))], node.name)
        else:
            b.dequantize(node.input, node.name)
        return
    # Not by DequantizeLinear, which ONNX Runtime moves behind a Reshape, to find that it cannot quantize to 32 bits.
    real = b.node("Cast", [node.input], b.name(node.name, "steps"), to=onnx.TensorProto.FLOAT)
    b.node("Mul", [real, b.constant(f"{node.input}.scale", encoding.scale)], node.name)


def only_inside(program: Program, name: str) -> bool:
    """Whether a constant is read by nothing but nodes that hold its codes themselves in ONNX."""
    return (all(isinstance(node, op.Dequantize | op.Dynamic) for node in program.readers(name))
            and not program.returns(name))


def _decode(b: OnnxBuilder, node: op.Dequantize, data: Quantized) -> None:
    """DequantizeLinear where ONNX has the format and the blocks; else a look-up or a cast, and a product."""
    format, encoding = data.encoding.format, data.encoding
    grid = _grid(data)
    if grid is None or not isinstance(format, Int) or format.bits > 8:
        _product(b, node, data)
        return
    attributes, shape = grid
    inputs = [_codes(b, f"{node.input}.codes", data.codes, format),
              b.constant(f"{node.input}.scale", encoding.scale.reshape(shape))]
    if encoding.zero_point.any():
        inputs.append(_codes(b, f"{node.input}.zero", encoding.zero_point.reshape(shape), format))
    b.node("DequantizeLinear", inputs, node.name, **attributes)


def _grid(data: Quantized) -> tuple[dict[str, Any], tuple[int, ...]] | None:
    """DequantizeLinear's attributes and the shape of its scales: one for all, one for each entry of an axis, or one for
    each run along an axis of every row; None for other blocks."""
    scales, shape = data.encoding.scale.shape, data.codes.shape
    several = [axis for axis, count in enumerate(scales) if count > 1]
    if not several:
        return {}, ()
    if len(several) == 1 and scales[several[0]] == shape[several[0]]:
        return {"axis": several[0]}, (-1,)
    runs = [axis for axis, count in enumerate(scales) if count != shape[axis]]
    return ({"axis": runs[0], "block_size": shape[runs[0]] // scales[runs[0]]}, scales) if len(runs) == 1 else None


def _codes(b: OnnxBuilder, name: str, codes: np.ndarray, format: Int) -> str:
    """Codes as an initializer, in 4 bits where they have no more."""
    if format.bits > 4:
        return b.constant(name, codes.astype(format.dtype))
    packed = pack(codes, Int(4, signed=format.signed)).tobytes()
    return b.tensor(helper.make_tensor(name, _FOUR_BITS[format.signed], codes.shape, packed, raw=True))


def _product(b: OnnxBuilder, node: op.Dequantize, data: Quantized) -> None:
    encoding, shape = data.encoding, data.codes.shape
    if isinstance(encoding.format, Int):
        codes = data.codes.astype(np.int32) - encoding.block.expand(encoding.zero_point, shape)
        numbers = b.node("Cast", [b.constant(f"{node.input}.codes", codes)], b.name(node.name, "numbers"),
                         to=onnx.TensorProto.FLOAT)
    else:
        low, high, dtype = encoding.format.low, encoding.format.high, encoding.format.dtype
        numbers = encoding.format.decode(np.arange(low, high + 1).astype(dtype)).astype(np.float32)
        table = b.constant(f"{node.input}.table", numbers)
        entries = b.constant(f"{node.input}.codes", (data.codes.astype(np.int32) - low).astype(np.uint16))
        index = b.node("Cast", [entries], b.name(node.name, "index"), to=onnx.TensorProto.INT32)
        numbers = b.node("Gather", [table, index], b.name(node.name, "numbers"), axis=0)
    scale = b.constant(f"{node.input}.scale", encoding.block.expand(encoding.scale, shape))
    b.node("Mul", [numbers, scale], node.name)

"""A thin layer over ONNX protobufs: nodes, constants, and the names they get."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fewbits.errors import VerificationError
from fewbits.limits import ONNX_BYTES
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.program.ops import Constant
from fewbits.program.program import Program
from fewbits.program.unary import Onnx, UnaryForm, X

OPSET = 19
OPSET_OF_OTHER_WIDTHS = 21  # 4-bit and 16-bit integers, and a scale for each run of numbers
IR_VERSION = 10
LARGEST = ONNX_BYTES - 1
"""Bytes of a file."""
_GRAPH, _CONSTANT = bytes([7 << 3 | 2]), bytes([5 << 3 | 2])  # tags of fields with a length
MICROSOFT = "com.microsoft"  # the domain of QLinearAdd, QGemm and their like


_ELEMENT = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64, "int32": onnx.TensorProto.INT32,
            "uint8": onnx.TensorProto.UINT8, "int8": onnx.TensorProto.INT8, "bool": onnx.TensorProto.BOOL,
            "int16": onnx.TensorProto.INT16, "uint16": onnx.TensorProto.UINT16}
_FOUR_BITS = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)


class OnnxBuilder:
    """Collects nodes and constants of one graph. Tensors bear the names of the program's values; what is
    made on the way gets the value's name and a suffix. portable: names of nodes to be written so that every x86-64
    computes them alike."""

    def __init__(self, program: Program, portable: Collection[str] = ()):
        self.program, self.portable = program, portable
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._made: dict[str, int] = {}
        self._within, self._few = "", False
        self._known = {node.name: node for node in program.everything if isinstance(node, Constant)}

    def constant(self, name: str, array: np.ndarray) -> str:
        """Adds an initializer once per name; returns the name, which is another where a value bears it, and in a body,
        which has initializers of its own."""
        if name in self.program.values:
            name = f"{name}.initializer"
        name = f"{name}{self._within}"
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape),
                                                            name)
        return name

    def tensor(self, tensor: onnx.TensorProto) -> str:
        """Adds an initializer that NumPy has no type for, once per name; returns the name."""
        tensor.name = f"{tensor.name}{self._within}"
        self._constants.setdefault(tensor.name, tensor)
        return tensor.name

    def body(self, name: str, given: Sequence[tuple[str, str]], made: Sequence[tuple[str, str]],
             emit: Callable[[], None], real: bool = False) -> onnx.GraphProto:
        """What `emit` adds, as a graph of its own. given, made: its inputs and outputs, each with the value of the
        program that it is; real: whether codes are the numbers that they stand for."""
        outside = self._nodes, self._constants, self._within
        self._nodes, self._constants, self._within = [], {}, f"/{name}"
        try:
            emit()
            inputs, outputs = ([helper.make_tensor_value_info(tensor, self._element(value, real), self._shape(value))
                                for tensor, value in values] for values in (given, made))
            self._few = self._few or _has_few_bits(self._nodes, self._constants)
            return helper.make_graph(self._nodes, name, inputs, outputs, list(self._constants.values()))
        finally:
            self._nodes, self._constants, self._within = outside

    def _element(self, name: str, real: bool) -> int:
        value = self.program.values[name]
        if value.encoding is None:
            return _ELEMENT[value.dtype]
        return _ELEMENT["float32"] if real else _ELEMENT[value.encoding.format.dtype.name]

    def _shape(self, name: str) -> list[int | str]:
        value = self.program.values[name]
        return ["N" if size is None else f"{name}.size{axis}" if axis in value.free else size
                for axis, size in enumerate(value.shape)]

    def constant_node(self, name: str) -> Constant | None:
        """The program's constant of that name."""
        return self._known.get(name)

    def for_every_image(self, node: str, names: Sequence[str]) -> list[str]:
        """Values to be joined into that of `node`, those with a batch of 1 repeated to the batch of the others."""
        shapes = {name: self.program.values[name].shape for name in names}
        batched = next((name for name in names if shapes[name][0] is None), None)
        if batched is None:
            return list(names)
        repeated = []
        for name in names:
            if shapes[name][0] is not None:
                size = self.node("Shape", [batched], self.name(node, "batch"), start=0, end=1)
                ones = self.constant(f"{node}.ones", np.ones(len(shapes[name]) - 1, np.int64))
                whole = self.node("Concat", [size, ones], self.name(node, "sizes"), axis=0)
                name = self.node("Expand", [name, whole], self.name(node, "repeated"))
            repeated.append(name)
        return repeated

    def node(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node that writes `output` and bears its name; returns `output`."""
        self._nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}/{operator}",
                                            domain=domain, **attributes))
        return output

    def several(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Adds a node that writes several tensors."""
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=f"{outputs[0]}/{operator}", **attributes))

    def unary(self, form: UnaryForm, source: str, output: str) -> str:
        """Adds the operators of a function of one number (program/unary.py) that reads `source`; returns `output`."""
        def operand(item: UnaryForm) -> str:
            if item == X:
                return source
            if isinstance(item, Onnx):
                return self.unary(item, source, self.name(output, item.operator.lower()))
            return self.constant(self.name(output, "number"), np.array(item, np.float32))

        if not isinstance(form, Onnx):
            form = Onnx("Identity", (form,))
        attributes: dict[str, Any] = {name: float(value) for name, value in form.attributes.items()}  # some are int
        return self.node(form.operator, [operand(item) for item in form.operands], output, **attributes)

    def name(self, base: str, suffix: str) -> str:
        """A name not used before, nor by a value: base.suffix, or base.suffix_2 and so on."""
        wish = f"{base}.{suffix}"
        while True:
            self._made[wish] = count = self._made.get(wish, 0) + 1
            name = wish if count == 1 else f"{wish}_{count}"
            if name not in self.program.values:
                return name

    def grid(self, name: str, encoding: Encoding) -> list[str]:
        """Names of the scale and zero point of a value: [scale, zero_point]."""
        zero = encoding.zero_point.astype(encoding.format.dtype)
        return [self.constant(f"{name}.scale", encoding.scale), self.constant(f"{name}.zero_point", zero)]

    def weight(self, name: str, data: Quantized) -> list[str]:
        """Names of codes, scale and zero point of a weight; scales one-dimensional or scalar."""
        encoding = data.encoding
        flat = (-1,) if encoding.scale.ndim else ()
        zero = encoding.zero_point.astype(encoding.format.dtype)
        return [self.constant(f"{name}.weight", self.weight_codes(name, data.codes)),
                self.constant(f"{name}.weight.scale", encoding.scale.reshape(flat)),
                self.constant(f"{name}.weight.zero_point", self.weight_codes(name, zero).reshape(flat))]

    def weight_codes(self, name: str, codes: np.ndarray) -> np.ndarray:
        """Codes, or zero points, of a node's weight as they are; those of a portable node, which are int8, as uint8,
        all of them 128 higher: ONNX Runtime never adds products of uint8 with uint8 in 16 bits."""
        return unsigned(codes) if name in self.portable else codes

    def dequantize(self, name: str, output: str) -> str:
        """DequantizeLinear of the value `name`."""
        return self.node("DequantizeLinear", [name, *self.grid(name, self.program.encoding(name))], output)

    def clip(self, source: str, name: str, low: int, high: int) -> str:
        """Bounds codes that the container does not bound by itself."""
        dtype = self.program.encoding(name).format.dtype
        bounds = [self.constant(f"{name}.low", np.array(low, dtype)),
                  self.constant(f"{name}.high", np.array(high, dtype))]
        return self.node("Clip", [source, *bounds], name)

    def needs_clip(self, name: str, low: int, high: int) -> bool:
        """Whether low and high are tighter than the integer type that holds the codes of `name`."""
        limits = np.iinfo(self.program.encoding(name).format.dtype)
        return low > limits.min or high < limits.max

    def model(self, outputs: dict[str, int], float_outputs: dict[str, str],
              metadata: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """The serialized model in pieces, which take the builder's constants with them, so that none is in memory
        twice. outputs: ONNX element type by tensor name; float_outputs: value name by tensor name, for the shapes;
        metadata: what the file says of itself. Raises VerificationError for more than 2 GB."""
        few = (self._few or _has_few_bits(self._nodes, self._constants)
               or any(map(self.program.is_wide, self.program.values)))
        opset = OPSET_OF_OTHER_WIDTHS if few else OPSET
        ends = helper.make_graph(
            [], "",
            [helper.make_tensor_value_info(name, _ELEMENT[self.program.values[name].dtype], self._shape(name))
             for name in self.program.inputs],
            [helper.make_tensor_value_info(name, kind, self._shape(float_outputs.get(name, name)))
             for name, kind in outputs.items()])
        ends.ClearField("name")
        last = onnx.ModelProto(opset_import=[helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)])
        helper.set_model_props(last, dict(metadata or {}))
        # Fields in the order of their numbers, as protobuf writes them: 5 of a graph are its constants, 7 of a model is
        # its graph.
        before, behind = onnx.GraphProto(node=self._nodes, name="fewbits").SerializeToString(), ends.SerializeToString()
        sizes = [tensor.ByteSize() for tensor in self._constants.values()]
        inside = len(before) + sum(1 + len(_varint(size)) + size for size in sizes) + len(behind)
        head = onnx.ModelProto(ir_version=IR_VERSION, producer_name="fewbits").SerializeToString()
        if inside > LARGEST - 2**20:
            raise too_large()
        return self._pieces(head + _GRAPH + _varint(inside) + before, behind + last.SerializeToString())

    def _pieces(self, head: bytes, tail: bytes) -> Iterator[bytes]:
        yield head
        while self._constants:
            tensor = self._constants.pop(next(iter(self._constants)))
            yield _CONSTANT + _varint(tensor.ByteSize()) + tensor.SerializeToString()
        yield tail


def _varint(number: int) -> bytes:
    """A length as protobuf writes it: 7 bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def too_large() -> VerificationError:
    """Of a program whose file would be larger than protobuf allows."""
    return VerificationError("the program takes more than 2 GB as one ONNX file, which is the most there may be: keep "
                             "it as .fewbits, or quantize it in parts (fb.capture(..., parts=[...])), each with a file "
                             "of its own")


def _has_few_bits(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a graph needs what came with `OPSET_OF_OTHER_WIDTHS`."""
    return any(tensor.data_type in _FOUR_BITS for tensor in constants.values()) or any(
        attribute.name == "block_size" for node in nodes for attribute in node.attribute)


def output_name(value: str) -> str:
    """Name of the float32 output that holds a program's value."""
    return f"{value}.float"


def unsigned(codes: np.ndarray) -> np.ndarray:
    """int8 codes, or zero points, as uint8, all of them 128 higher."""
    return (codes.astype(np.int16) + 128).astype(np.uint8)

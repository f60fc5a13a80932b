"""The fifth: its ONNX form."""

from toy_record import Hypotenuse

from fewbits.writers.onnx.builder import OnnxBuilder
from fewbits.writers.onnx.steps import FormTable, OnnxForms, bounded, quantize_onto


def _hypotenuse(b: OnnxBuilder, node: Hypotenuse) -> None:
    reals = [b.dequantize(name, b.name(name, "real")) for name in (node.first, node.second)]
    real = _length(b, node, *reals)
    bounded(b, node, lambda out: quantize_onto(b, real, node.name, out))


def _length(b: OnnxBuilder, node: Hypotenuse, first: str, second: str) -> str:
    squares = [b.node("Mul", [side, side], b.name(node.name, "square")) for side in (first, second)]
    return b.node("Sqrt", [b.node("Add", squares, b.name(node.name, "sum"))], b.name(node.name, "length"))


def _twin(b: OnnxBuilder, node: Hypotenuse) -> None:
    b.node("Identity", [_length(b, node, node.first, node.second)], node.name)


FORMS: FormTable = {Hypotenuse: OnnxForms(_hypotenuse, _hypotenuse, _twin)}

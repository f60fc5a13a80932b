"""What one input costs in energy, in integers and in float: counted from the Program, priced by the 45 nm tables."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from fewbits.numerics.encoding import Quantized
from fewbits.numerics.energy import Energy, Work, energy, macs
from fewbits.numerics.packing import packed_bytes
from fewbits.program import nodes as op
from fewbits.program.program import Program

_REAL = 4  # bytes of a float32 number, a scale or a bias
_ON_CHIP, _OFF_CHIP = "32 KB cache", "DRAM"

COUNTED = (
    "one input; each weight read once, each value written once and read once by every node that reads it",
    "a product of codes costs an int8 multiply (an int32 one beyond 8 bits) and an int32 add, in float both in fp32",
    "bringing a sum back to codes costs one fp32 multiply and add a number, an addition of codes two of both",
    "a division or an exponential counts as one fp32 multiply; comparisons, table look-ups and moved codes as none",
)


@dataclass(frozen=True)
class EnergyEstimate:
    """Of one input. original, integers: the float network and the program; memory: where each byte comes from;
    counted: what was counted how, beside each Energy's own assumptions."""

    original: Energy
    integers: Energy
    memory: str
    counted: tuple[str, ...] = COUNTED

    @property
    def ratio(self) -> tuple[float, float]:
        """Float energy over that of the integers, at the low and at the high ends of the table."""
        low, high = (a / b if b else 1.0 for a, b in zip(self.original.total, self.integers.total, strict=True))
        return low, high


def energy_estimates(program: Program) -> tuple[EnergyEstimate, ...]:
    """The estimate with every byte from on-chip memory, and with every byte from DRAM: the truth lies between."""
    floats, integers = float_work(program), integer_work(program)
    return tuple(EnergyEstimate(energy(floats, memory), energy(integers, memory), memory)
                 for memory in (_ON_CHIP, _OFF_CHIP))


def integer_work(program: Program) -> tuple[Work, ...]:
    """What each node of the program does with one input."""
    return tuple(Work(_integer_operations(program, node), _moved(program, node) + sum(map(_stored, _weights(node)))
                      + _bias_bytes(node), node.name) for node in program.nodes)


def float_work(program: Program) -> tuple[Work, ...]:
    """What the float original does where the program has a node: 4 bytes for each number, fp32 arithmetic."""
    return tuple(Work(_float_operations(program, node), _moved_numbers(program, node) * _REAL
                      + sum(data.codes.size for data in _weights(node)) * _REAL + _bias_bytes(node), node.name)
                 for node in program.nodes if not isinstance(node, op.Quantize | op.Dequantize))


def _integer_operations(program: Program, node: op.Node) -> Mapping[str, float]:
    written, read = _numbers(program, node.name), sum(_numbers(program, name) for name in op.reads(node))
    requantized = Counter({} if program.is_accumulator(node.name) else {"multiply fp32": written, "add fp32": written})
    match node:
        case op.Conv() | op.Linear() | op.MatMul():
            return Counter(_macs(program, node)) + requantized
        case op.Add() | op.Quotient() | op.Larger():
            return Counter({"multiply fp32": 2 * written, "add fp32": 2 * written})
        case op.Mul():
            return Counter({_multiply(program, op.reads(node)): written}) + requantized
        case op.AveragePool():
            return Counter({"add int32": written * prod(node.kernel)}) + requantized
        case op.Mean():
            return Counter({"add int32": read}) + requantized
        case op.Requantize() | op.Concat() | op.Quantize():
            return requantized
        case op.FloatCall():
            return _float_operations(program, node)
        case op.DynamicConv() | op.DynamicLinear():  # its codes, and the floats its sums become
            count, taken = _dynamic_products(program, node), _numbers(program, node.input)
            floats = taken + written
            return {"multiply int8": count, "add int32": count, "multiply fp32": floats, "add fp32": floats}
        case op.Dequantize() if not _is_stored(program, node):
            return {"multiply fp32": written}
        case op.Softmax() | op.LogSoftmax():
            return Counter({"add int32": read, "multiply fp32": written}) + requantized
        case op.LayerNorm():
            return Counter({_multiply(program, op.reads(node)): read, "add int32": 2 * read,
                            "multiply fp32": 2 * written, "add fp32": 2 * written}) + requantized
        case _:
            return {}


def _macs(program: Program, node: op.Conv | op.Linear | op.MatMul) -> Mapping[str, float]:
    count = _products(program, node)
    return {_multiply(program, op.reads(node)): count, "add int32": count}


def _multiply(program: Program, operands: tuple[str, ...]) -> str:
    """The cheapest multiplication of the table that takes codes so wide; weights have 8 bits at most."""
    return "multiply int8" if max(_bits(program, name) for name in operands) <= 8 else "multiply int32"


def _float_operations(program: Program, node: op.Node) -> Mapping[str, float]:
    written, read = _numbers(program, node.name), sum(_numbers(program, name) for name in op.reads(node))
    match node:
        case op.Conv() | op.Linear() | op.MatMul():
            return macs(_products(program, node), "fp32")
        case op.Add() | op.Larger():
            return {"add fp32": written}
        case op.Mul() | op.Quotient() | op.Table():
            return {"multiply fp32": written}
        case op.AveragePool():
            return {"add fp32": written * prod(node.kernel), "multiply fp32": written}
        case op.Mean():
            return {"add fp32": read, "multiply fp32": written}
        case op.Softmax() | op.LogSoftmax():
            return {"add fp32": read, "multiply fp32": 2 * written}
        case op.LayerNorm():
            return {"add fp32": 4 * read, "multiply fp32": 3 * read}
        case op.FloatCall():
            return _call_operations(program, node)
        case op.DynamicConv() | op.DynamicLinear():
            return macs(_dynamic_products(program, node), "fp32")
        case _:
            return {}


def _dynamic_products(program: Program, node: op.DynamicConv | op.DynamicLinear) -> int:
    return _numbers(program, node.name) * prod(program.constant(node.weight).codes.shape[1:])


def _call_operations(program: Program, node: op.FloatCall) -> Mapping[str, float]:
    written, (first, *others) = _numbers(program, node.name), op.reads(node)
    match node.call.removeprefix("aten.").split(".")[0]:
        case "conv1d" | "conv2d" | "conv3d" | "linear":
            return macs(written * prod(size or 1 for size in program.values[others[0]].shape[1:]), "fp32")
        case "matmul" | "bmm":
            return macs(written * program.count(first, (-1,)), "fp32")
        case "add" | "sub":
            return {"add fp32": written}
        case "mean" | "avg_pool2d" | "adaptive_avg_pool2d":
            return {"add fp32": _numbers(program, first), "multiply fp32": written}
        case "layer_norm":
            return {"add fp32": 4 * written, "multiply fp32": 3 * written}
        case "embedding" | "cat" | "concat" | "join" | "relu" | "relu6" | "hardtanh" | "clamp":
            return {}
        case _:
            return {"multiply fp32": written}


def _is_stored(program: Program, node: op.Node) -> bool:
    """Whether a node is a parameter, or decodes one: its bytes are counted where it is read, as what is stored."""
    constants = {other.name for other in program.nodes if isinstance(other, op.Constant)}
    return isinstance(node, op.FloatConstant) or (isinstance(node, op.Dequantize) and node.input in constants) or (
        isinstance(node, op.Constant) and any(isinstance(other, op.Dequantize | op.Dynamic)
                                              and node.name in op.reads(other) for other in program.nodes))


def _products(program: Program, node: op.Conv | op.Linear | op.MatMul) -> int:
    """Multiply-accumulates for one input."""
    written = _numbers(program, node.name)
    if isinstance(node, op.MatMul):
        return written * program.count(node.first, (-1,))
    return written * prod(node.weight.codes.shape[1:])


def _numbers(program: Program, name: str) -> int:
    """Elements of a value for one input."""
    return prod(1 if size is None else size for size in program.values[name].shape)


def _moved_numbers(program: Program, node: op.Node) -> int:
    return 0 if _is_stored(program, node) else sum(_numbers(program, name) for name in (node.name, *op.reads(node)))


def _moved(program: Program, node: op.Node) -> float:
    """Bytes of the values a node reads and writes; of decoded parameters, those of their codes."""
    if _is_stored(program, node):
        return 0
    return sum(_numbers(program, name) * _bits(program, name) / 8 for name in (node.name, *op.reads(node)))


def _bits(program: Program, name: str) -> int:
    made_by = next((node for node in program.nodes if node.name == name), None)
    if isinstance(made_by, op.Dequantize) and _is_stored(program, made_by):
        name = made_by.input
    encoding = program.values[name].encoding
    return 8 * _REAL if encoding is None else encoding.format.bits


def _weights(node: op.Node) -> tuple[Quantized, ...]:
    return (node.weight,) if isinstance(node, op.Conv | op.Linear) else ()


def _stored(data: Quantized) -> int:
    return packed_bytes(data.codes.size, data.encoding.format) + _REAL * data.encoding.scale.size


def _bias_bytes(node: op.Node) -> int:
    return _REAL * node.bias.size if isinstance(node, op.Conv | op.Linear) and node.bias is not None else 0

"""What one input costs in energy, in integers and in float: counted from the Program, priced by the 45 nm tables."""

from collections.abc import Mapping
from dataclasses import dataclass

from fewbits.numerics.encoding import Quantized
from fewbits.numerics.energy import Energy, Work, energy
from fewbits.numerics.packing import packed_bytes
from fewbits.program import ops as op
from fewbits.program.ops.record import Operations
from fewbits.program.ops.recurrence import computed
from fewbits.program.ops.work import bits, numbers
from fewbits.program.program import Program

_REAL = 4  # bytes of a float32 number, a scale or a bias
_ON_CHIP, _OFF_CHIP = "32 KB cache", "DRAM"

COUNTED = (
    "one input; each weight read once (that of a recurrence once a step), each value written once and read once by "
    "every node that reads it",
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
    parameters = _Parameters.of(program)
    return tuple(_repeated(times, op.record_of(node).work(program, node), parameters.moved_bytes(program, node)
                           + sum(map(_stored, _weights(node))) + _bias_bytes(node), node.name)
                 for node, times in computed(program))


def float_work(program: Program) -> tuple[Work, ...]:
    """What the float original does where the program has a node: 4 bytes for each number, fp32 arithmetic."""
    parameters = _Parameters.of(program)
    work = ((node, op.record_of(node).float_work, times) for node, times in computed(program))
    return tuple(_repeated(times, operations(program, node), parameters.moved_numbers(program, node) * _REAL
                           + sum(data.codes.size for data in _weights(node)) * _REAL + _bias_bytes(node), node.name)
                 for node, operations, times in work if operations is not None)


def _repeated(times: int, operations: Operations, moved: float, name: str) -> Work:
    return Work({each: times * count for each, count in operations.items()}, times * moved, name)


@dataclass(frozen=True)
class _Parameters:
    """The nodes that are a parameter, or decode one: their bytes are counted where it is read, as what is stored.

    names: of these nodes; decoded: the constant behind each that decodes one.
    """

    names: frozenset[str]
    decoded: Mapping[str, str]

    @classmethod
    def of(cls, program: Program) -> "_Parameters":
        decoded = {node.name: node.input for node in program.everything
                   if isinstance(node, op.Dequantize) and program.is_constant(node.input)}
        inside = {name for node in program.everything if isinstance(node, op.Dequantize | op.Dynamic)
                  for name in op.reads(node) if program.is_constant(name)}
        floats = {node.name for node in program.nodes if isinstance(node, op.FloatConstant)}
        return cls(frozenset(decoded) | inside | floats, decoded)

    def moved_numbers(self, program: Program, node: op.ProgramNode) -> int:
        """Numbers that a node reads and writes."""
        return 0 if node.name in self.names else numbers(program, node.name, *op.reads(node))

    def moved_bytes(self, program: Program, node: op.ProgramNode) -> float:
        """Bytes of the values a node reads and writes; of decoded parameters, those of their codes."""
        if node.name in self.names:
            return 0
        return sum(numbers(program, name) * bits(program, self.decoded.get(name, name)) / 8
                   for name in (node.name, *op.reads(node)))


def _weights(node: op.ProgramNode) -> tuple[Quantized, ...]:
    return (node.weight,) if isinstance(node, op.Conv | op.Linear) else ()


def _stored(data: Quantized) -> int:
    return packed_bytes(data.codes.size, data.encoding.format) + _REAL * data.encoding.scale.size


def _bias_bytes(node: op.ProgramNode) -> int:
    return _REAL * node.bias.size if isinstance(node, op.Conv | op.Linear) and node.bias is not None else 0

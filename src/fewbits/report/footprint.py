"""What a program takes of a machine for one input: bytes of weights, bytes of activations at once, bit operations."""

from dataclasses import dataclass
from math import ceil

from fewbits.numerics.encoding import Quantized
from fewbits.numerics.packing import packed_bytes
from fewbits.program import ops as op
from fewbits.program.memory import Arena, Buffer, arranged
from fewbits.program.ops.recurrence import computed
from fewbits.program.ops.work import bits, numbers
from fewbits.program.program import Program

_FLOAT = 32
_FLOAT_DOTS = ("conv1d", "conv2d", "conv3d", "linear", "matmul", "bmm")


@dataclass(frozen=True)
class Footprint:
    """weight_memory: bytes of packed weights and constants; activation_memory: the most bytes of packed values that are
    alive at once, none shared but by what only reshapes; arena: of the one piece of memory that the planner lays them
    in (program/memory.py), which fragments may make larger; bops: products times the bits of both operands (Baskin et
    al. 2018, arXiv:1804.10969). The inputs as floats are the caller's and not counted."""

    weight_memory: int
    activation_memory: int
    arena: int
    bops: int


def footprint(program: Program) -> Footprint:
    """Of the program, every code in the bits of its format."""
    weights = sum(packed_bytes(data.codes.size, data.encoding.format) for data in _stored(program))
    floats = sum(4 * numbers(program, node.name) for node in program.nodes if isinstance(node, op.FloatConstant))
    sizes = {name: ceil(numbers(program, name) * bits(program, name) / 8) for name in _kept(program)}
    arena = _arena(program, sizes)
    return Footprint(weights + floats, arena.needed, arena.size,
                     sum(count * first * second for count, first, second in _products(program)))


def float_footprint(program: Program) -> Footprint:
    """Of the float network that the program was made of: 32 bits everywhere."""
    weights = sum(4 * data.codes.size for data in _stored(program))
    floats = sum(4 * numbers(program, node.name) for node in program.nodes if isinstance(node, op.FloatConstant))
    sizes = {name: 4 * numbers(program, name) for name in _kept(program)}
    arena = _arena(program, sizes)
    return Footprint(weights + floats, arena.needed, arena.size,
                     sum(count * _FLOAT * _FLOAT for count, *_ in _products(program)))


def _stored(program: Program) -> list[Quantized]:
    """Codes known beforehand: of layers and of constants, each once."""
    inside = [node.weight for node in program.everything if isinstance(node, op.Conv | op.Linear)]
    return list({id(data): data for data in (*inside, *map(program.constant, filter(program.is_constant,
                                                                                   program.values)))}.values())


def _products(program: Program) -> list[tuple[int, int, int]]:
    """(products, bits of one operand, of the other) of each node that multiplies and adds up."""
    found = []
    for node, times in computed(program):
        if isinstance(node, op.FloatCall) and node.call.removeprefix("aten.").split(".")[0] in _FLOAT_DOTS:
            work = op.record_of(node).float_work
            assert work is not None
            found.append((times * int(work(program, node)["multiply fp32"]), _FLOAT, _FLOAT))
        sums = op.record_of(node).sums
        if sums is None or sums.products is None:
            continue
        first, *more = op.reads(node)
        other = (sums.weight(program, node).encoding.format.bits if sums.weight is not None
                 else bits(program, more[0] if more else first))
        found.append((times * sums.products(program, node), bits(program, first), other))
    return found


def _parameters(program: Program) -> set[str]:
    """Values that are known beforehand, or decoded from such."""
    known = {node.name for node in program.nodes
             if isinstance(node, op.Constant | op.FloatConstant | op.ExactConstant)}
    return known | {node.name for node in program.nodes if isinstance(node, op.Dequantize) and node.input in known}


def _aliases(program: Program) -> dict[str, str]:
    """The value whose memory a reshaped one shares."""
    found: dict[str, str] = {}
    for node in program.everything:
        if isinstance(node, op.Reshape):
            found[node.name] = found.get(node.input, node.input)
    return found


def _kept(program: Program) -> list[str]:
    """Values that lie in the arena."""
    without = _parameters(program) | _aliases(program).keys()
    floats = {name for name in program.inputs if program.is_float(name)}
    return [name for name in program.values if name not in without and name not in floats]


def _beside(node: op.ProgramNode) -> tuple[str, ...]:
    """Values that lie in memory while a node runs, beside what it reads: what it writes, and all values of its body."""
    return (*node.written, *(node.inside if isinstance(node, op.Recurrence) else ()))


def _arena(program: Program, sizes: dict[str, int]) -> Arena:
    alias = _aliases(program)
    places = {name: place for place, node in enumerate(program.nodes) for name in _beside(node)}
    last: dict[str, int] = {}
    for place, node in enumerate(program.nodes):
        for name in (*_beside(node), *op.reads(node)):
            last[alias.get(name, name)] = place
    for name in program.outputs:
        last[alias.get(name, name)] = len(program.nodes)
    buffers = [Buffer(name, size, places.get(name, 0), last.get(name, 0)) for name, size in sizes.items()]
    return arranged(buffers, alignment=1)

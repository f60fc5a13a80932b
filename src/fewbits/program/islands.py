"""A program with float islands cut in two, so that each half can be checked by what it promises.

Fed the numbers that the reference gives at the cut, the integers must give equal codes, and the floats, which every
engine rounds in its own order, numbers within a tolerance and codes at most one step off.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from fewbits.program.float_calls import TOLERANCE, TOLERANCE_OF_STEPS
from fewbits.program.node import ProgramNode
from fewbits.program.ops import (
    Constant,
    Dequantize,
    Dynamic,
    FloatCall,
    FloatConstant,
    Quantize,
    Recurrence,
    Threshold,
    is_move,
    reads,
)
from fewbits.program.program import Program
from fewbits.program.value import Value


def integer_half(program: Program) -> Program:
    """All that is exact: the nodes on codes, the way from codes to floats, and products that are quantized
    dynamically. Its inputs are the program's and what islands give; its outputs the program's and what islands take,
    decoded weights among it."""
    calls = _island_nodes(program)
    biases = {node.bias for node in program.nodes if isinstance(node, Dynamic)}
    nodes = [node for node in program.nodes if node.name not in calls
             and (not isinstance(node, FloatConstant) or node.name in biases)]
    read = {name for node in nodes for name in reads(node)}
    nodes = [node for node in nodes if not isinstance(node, Constant) or node.name in read
             or program.returns(node.name)]  # others are codes that only islands read
    left = {node.name for node in nodes}
    taken = {name for node in program.nodes if node.name in calls for name in reads(node)
             if name in left or not program.is_constant(name)}
    return _half(program, nodes, taken)


def float_half(program: Program) -> Program:
    """All float islands, each with its own quantizers behind it and the constants it decodes. Its inputs are float32
    values that come from codes, or the program's own."""
    calls = _island_nodes(program)
    read = {name for node in program.nodes if node.name in calls for name in reads(node)}
    decoded = {node.name: node.input for node in program.nodes if isinstance(node, Dequantize) and node.name in read}
    constants = {node.name for node in program.nodes if isinstance(node, Constant | FloatConstant)}
    beside = read & constants | {name for pair in decoded.items() if pair[1] in constants for name in pair}
    closing = {node.name for node in program.nodes if isinstance(node, Quantize | Threshold) and node.input in calls}
    chosen = calls | beside | closing
    taken = {name for node in program.nodes if isinstance(node, Dynamic) for name in reads(node)}
    return _half(program, [node for node in program.nodes if node.name in chosen], taken - constants)


def _island_nodes(program: Program) -> set[str]:
    """Names of the nodes inside islands: calls, and what moves floats."""
    return {node.name for node in program.nodes if isinstance(node, FloatCall) or _holds_calls(node)
            or (is_move(node) and program.is_float(node.name))}


def _holds_calls(node: ProgramNode) -> bool:
    """Whether a node is a recurrence some of whose body is computed in float32: all of it is an island."""
    return isinstance(node, Recurrence) and any(isinstance(each, FloatCall) for each in node.body)


def rounds_steps(node: ProgramNode | None) -> bool:
    """Whether a node is a recurrence that brings floats to codes within its steps, so that what two engines round
    otherwise may become another code there, which goes on to the next step."""
    return isinstance(node, Recurrence) and _holds_calls(node) and any(
        isinstance(each, Quantize | Threshold | Dynamic) for each in node.body)


def _half(program: Program, nodes: Iterable[ProgramNode], taken: Iterable[str]) -> Program:
    """Some of the nodes as a program of their own. taken: values of it that the rest reads; the program's outputs and
    what nobody reads are outputs, too."""
    nodes = tuple(nodes)
    written = {name: None for node in nodes for name in node.written}
    read = dict.fromkeys(name for node in nodes for name in reads(node))
    inputs = tuple(name for name in read if name not in written)
    inside = [name for node in nodes if isinstance(node, Recurrence) for name in node.inside]
    values: Mapping[str, Value] = {name: program.values[name] for name in (*inputs, *written, *inside)}
    wanted = {*taken, *program.outputs, *(written.keys() - set(read))}
    return Program(program.profile, inputs, nodes, values, tuple(name for name in written if name in wanted))


def tolerances(half: Program) -> Mapping[str, float]:
    """By value, how far an engine's floats may be from the reference's, as `shares` has it: TOLERANCE, and
    TOLERANCE_OF_STEPS where a recurrence that brings floats to codes within its steps lies before."""
    far: set[str] = set()
    for node in half.nodes:
        if rounds_steps(node) or not far.isdisjoint(reads(node)):
            far.update(node.written)
    return {name: TOLERANCE_OF_STEPS if name in far else TOLERANCE for name in half.values}


def shares(half: Program, name: str, known: Mapping[str, np.ndarray], actual: np.ndarray,
           expected: np.ndarray | None = None) -> np.ndarray:
    """How far each number of a float value is from the reference's, as a share of the largest number of that value and
    of those it was computed from, constants left out.

    known: the reference's values by name, those at hand; expected: some numbers of the value, where `actual` is not all
    of it. Equal infinities and NaN are 0 away.
    """
    wanted = known[name] if expected is None else expected
    with np.errstate(invalid="ignore"):
        away = np.abs(wanted.astype(np.float64) - actual)
    same = (wanted == actual) | (np.isnan(wanted) & np.isnan(actual))
    return np.where(same, 0.0, np.where(np.isnan(away), np.inf, away) / (_largest(half, name, known) or 1.0))


def _is_known_beforehand(half: Program, name: str) -> bool:
    """Whether a value is a constant, or one that was decoded."""
    node = half.by_name.get(name)
    source = half.by_name.get(node.input) if isinstance(node, Dequantize) else node
    return isinstance(source, Constant | FloatConstant)


def _largest(half: Program, name: str, known: Mapping[str, np.ndarray]) -> float:
    """The largest finite number of a value and of its operands that are no constants."""
    node = half.by_name.get(name)
    operands = [each for each in (() if node is None else reads(node))
                if each in known and not _is_known_beforehand(half, each)]
    arrays = [known[each] for each in (name, *operands) if half.is_float(each)]
    return max(float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in arrays)

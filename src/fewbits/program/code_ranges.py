"""Which codes each value of a program can take, over all inputs."""

import numpy as np

from fewbits.program import ops as op
from fewbits.program.ops import is_move, reads
from fewbits.program.program import Program

Interval = tuple[int, int]
"""Lowest and highest code."""


def code_ranges(program: Program) -> dict[str, Interval]:
    """Bounds of the codes of every value that has codes and is no accumulator.

    From what nodes say they write: the bounds of their results (a ReLU's), the entries of tables that their input can
    reach, constants, the rows of an embedding; else all codes of the format.
    """
    found: dict[str, Interval] = {}
    for node in program.everything:
        for name in reads(node):  # what a body is given at each step
            encoding = program.values[name].encoding
            if name not in found and encoding is not None and not program.is_accumulator(name):
                found[name] = encoding.format.low, encoding.format.high
        if isinstance(node, op.Recurrence):
            found |= {name: found[inner] for name, inner in (
                (node.name, node.output), *((each.last, each.following) for each in node.states if each.last))
                if inner in found}
            continue
        encoding = program.values[node.name].encoding
        if encoding is None or program.is_accumulator(node.name):
            continue
        low, high = encoding.format.low, encoding.format.high
        match node:
            case op.Constant():
                low, high = _of(node.data.codes, (low, high))
            case op.Embedding():
                low, high = _of(node.table.codes, (low, high))
            case op.Threshold():
                low, high = _of(node.levels, (low, high))
            case op.Table() if node.input in found:
                lowest = program.encoding(node.input).format.low
                first, last = found[node.input]
                low, high = _of(node.table[:, first - lowest:last - lowest + 1], (low, high))
            case op.Pad() if node.input in found:
                zero = int(encoding.zero_point)
                low, high = min(found[node.input][0], zero), max(found[node.input][1], zero)
            case _ if is_move(node) and reads(node)[0] in found:
                low, high = found[reads(node)[0]]
            case _:  # what bounds its results says so in these fields
                low, high = max(low, getattr(node, "low", low)), min(high, getattr(node, "high", high))
        found[node.name] = low, high
    return found


def _of(codes: np.ndarray, otherwise: Interval) -> Interval:
    return (int(codes.min()), int(codes.max())) if codes.size else otherwise

"""Sizes that move with the batch: the batch itself, or a multiple of it where heads or windows are folded into it."""

from collections.abc import Mapping
from math import prod

from fewbits.program.ops import Concat, Reshape, reads
from fewbits.program.program import Program


def moving_sizes(program: Program, given: Mapping[str, int]) -> dict[str, int] | None:
    """The size of the moving axis of each value that has one, where those of the inputs are `given`; None where the
    operands of a node do not go together."""
    sizes = dict(given)
    for node in program.nodes:
        shape = program.values[node.name].shape
        operands = [name for name in reads(node) if name in sizes]
        if None not in shape or not operands:
            continue
        found = {sizes[name] for name in operands}
        if isinstance(node, Reshape):
            count = sizes[node.input] * _fixed(program, node.input)
            if count % _fixed(program, node.name):
                return None
            found = {count // _fixed(program, node.name)}
        elif isinstance(node, Concat) and shape[node.axis] is None:
            found = {sum(sizes[name] for name in operands)}
        if len(found) > 1:
            return None
        sizes[node.name] = found.pop()
    return sizes


def _fixed(program: Program, name: str) -> int:
    return prod(size for size in program.values[name].shape if size is not None) or 1

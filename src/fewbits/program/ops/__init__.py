"""The operators of the integer graph, one record each, a family a file.

A node reads values by name and writes the value that bears its own name; a recurrence writes its last states too. Codes
in, codes out, except `Quantize`, which reads float32, `Embedding`, which reads int64, the nodes of float islands, from
`Dequantize` on, and those on token numbers and masks, `ExactCall`; those that only move numbers take all of these.
Convolutions and pools work on [N, C, ...] with one to three axes behind the channels (pools: two or three), everything
else on any shape.
"""

from collections.abc import Mapping

from fewbits.errors import ProgramError
from fewbits.program.accumulator import Bound
from fewbits.program.float_calls import Argument as Argument
from fewbits.program.float_calls import Read as Read
from fewbits.program.node import Margins as Margins
from fewbits.program.node import ProgramNode as ProgramNode
from fewbits.program.node import Sizes as Sizes
from fewbits.program.ops import dots, dynamic, exact, floats, functions, grids, moves, pairs, pools, recurrence, rows
from fewbits.program.ops.dots import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.dynamic import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.exact import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.floats import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.functions import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.grids import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.moves import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.pairs import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.pools import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.record import Record as Record
from fewbits.program.ops.recurrence import *  # noqa: F403  its operators, by its __all__
from fewbits.program.ops.rows import *  # noqa: F403  its operators, by its __all__
from fewbits.program.value import Scope


def record_of(node: ProgramNode) -> Record:
    """The record of a node's class. Raises ProgramError where there is none."""
    record = RECORDS.get(type(node))
    if record is None:
        raise ProgramError(f"node {node.name!r} is a {type(node).__name__}, which is no operator of a program")
    return record


RECORDS: Mapping[type[ProgramNode], Record] = {
    **grids.RECORDS, **dots.RECORDS, **pairs.RECORDS, **pools.RECORDS, **rows.RECORDS, **functions.RECORDS,
    **moves.RECORDS, **floats.RECORDS, **dynamic.RECORDS, **exact.RECORDS, **recurrence.records(record_of),
}
"""What is known of every operator. A program holds nodes of these classes and of no others."""


def reads(node: ProgramNode) -> tuple[str, ...]:
    """Names of the values a node reads, in order."""
    return record_of(node).reads(node)


def is_move(node: ProgramNode) -> bool:
    """Whether a node moves numbers or picks among them, so that what it writes is of the kind that it reads."""
    return record_of(node).writes == "moved"


def accumulator_bound(program: Scope, node: ProgramNode) -> Bound:
    """Interval of the sums of a node that adds up, over all inputs that the codes it reads allow (docs/numerics.md,
    eq. 9). Every term's interval contains 0 (the zero point is a code), so the sum of the intervals bounds each partial
    sum too, and what padding leaves out."""
    sums = record_of(node).sums
    assert sums is not None, f"{type(node).__name__} adds nothing up"
    return sums.bound(program, node)

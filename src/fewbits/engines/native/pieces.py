"""Batches that are run in pieces: what a piece needs stays in the caches, so that an input takes no longer in a large
batch than in a small one, and memory does not grow with the batch."""

from collections.abc import Collection

from fewbits.program import ops as op
from fewbits.program.program import Program

ARENA = 4 * 2**20
"""Bytes of values that a run keeps at once, beyond which a batch is cut. Measured on SqueezeNet: 1.14 ms an image with
1 MiB, 1.28 with 8, 1.98 with 32."""

_BY_ROW = (op.Quantize, op.Requantize, op.Table, op.Threshold, op.Conv, op.Linear, op.Add, op.Sub, op.Mul, op.Div,
           op.Max, op.Min, op.MaxPool, op.AveragePool, op.Mean, op.Concat, op.Reshape, op.Slice, op.Pad)
"""Whose every row of the first axis comes of the same row of what they read, as long as that axis stays the batch."""


def is_by_row(program: Program, wanted: Collection[str]) -> bool:
    """Whether the rows of a batch do not depend on each other, decided from the kinds of nodes and from every value's
    first axis; False where that does not tell."""
    def keeps_rows(name: str) -> bool:
        return program.values[name].shape[:1] == (None,)

    if not all(map(keeps_rows, (*program.inputs, *wanted))):
        return False
    for node in program.nodes:
        if isinstance(node, op.Constant):
            continue
        if not isinstance(node, _BY_ROW) or not keeps_rows(node.name):
            return False
        if isinstance(node, op.Concat | op.Slice) and node.axis == 0:
            return False
    return True


def rows_at_once(rows: int, arena: int) -> int:
    """How many rows to run at once where all of them need so many bytes."""
    return rows if arena <= ARENA else max(1, rows * ARENA // arena)

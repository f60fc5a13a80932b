"""Functions of one number: a table over all codes, or comparisons with thresholds."""

from dataclasses import dataclass

import numpy as np

from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import parse
from fewbits.program.node import ProgramNode
from fewbits.program.ops import fits
from fewbits.program.ops.record import Example, Held, Record, always, called, reads_one
from fewbits.program.ops.samples import IMAGE, SUMS, WIDE, X, Y
from fewbits.program.ops.steps import Codes, f32
from fewbits.program.ops.work import nothing, numbers
from fewbits.program.value import Scope, Value

__all__ = ["Table", "Threshold"]


@dataclass(frozen=True, eq=False)
class Table(ProgramNode):
    """Any function of one number, as its codes (eq. 12).

    table: output codes [rows, 256] (4096 for 12-bit codes), by input code less the lowest; one row, or one per
    channel (axis 1). function: what it computes, in words for a reader.
    """

    input: str
    table: np.ndarray
    function: str


@dataclass(frozen=True, eq=False)
class Threshold(ProgramNode):
    """Codes by comparison (eq. 16), for numbers that are not evenly spaced and for signs.

    It reads 32-bit sums or a float32 input, and nothing else. levels: the codes written, uint8 [n + 1], ascending;
    thresholds: ascending [rows, n], int32 for sums, float32 for an input; direction: int8 [rows], 1 or -1. As many
    thresholds of its row as direction · x reaches, so far along the levels x gets. rows: one, or one per entry of
    `axis`.
    """

    input: str
    thresholds: np.ndarray
    direction: np.ndarray
    levels: np.ndarray
    axis: int


def _table(program: Scope, node: Table, x: Codes) -> Codes:
    entry = x.astype(np.int64) - program.encoding(node.input).format.low
    if len(node.table) == 1:
        return node.table[0][entry]
    rows = np.arange(len(node.table)).reshape(-1, *[1] * (x.ndim - 2))
    return node.table[rows, entry]


def _threshold(program: Scope, node: Threshold, x: np.ndarray) -> Codes:
    def along(per_row: np.ndarray) -> np.ndarray:
        shape = [1] * x.ndim
        shape[node.axis] = per_row.size
        return per_row.reshape(shape)

    directed = x.astype(np.int64 if x.dtype == np.int32 else f32) * along(node.direction)
    reached = np.zeros(x.shape, np.int64)
    for place in range(node.thresholds.shape[1]):
        reached += directed >= along(node.thresholds[:, place])
    return node.levels[reached]


def _table_held(node: Table) -> tuple[Held, ...]:
    return (Held("table", node.table.shape, "", node.table.nbytes, "what each code, or each row, becomes"),)


def _thresholds_held(node: Threshold) -> tuple[Held, ...]:
    return (Held("thresholds", node.thresholds.shape, str(node.thresholds.dtype),
                 node.thresholds.nbytes + node.direction.nbytes + node.levels.nbytes,
                 "where one level becomes the next"),)


_LEVELS = Encoding(parse("uint8"), 0.5, 2)

RECORDS = {
    Table: Record(
        does="any function of one number, looked up by the code",
        equations="12",
        reads=reads_one,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="both",
        check=fits.table,
        reference=_table,
        sums=None,
        rescaling=None,
        limits={"function of one number": always},
        work=nothing,
        float_work=lambda program, node: {"multiply fp32": numbers(program, node.name)},
        holds=_table_held,
        computes=("batch_norm", "clamp", "function", "div", "prelu", "sub", "mul"),
        layer=called(lambda x: x.sigmoid()),
        examples=lambda: (
            Example(Table("y", "x", np.arange(256, dtype=np.uint8)[None, ::-1].copy(), "reversed"),
                    {"x": Value(IMAGE, X)}, Value(IMAGE, Y)),
            Example(Table("y", "x", (np.arange(3 * 256).reshape(3, 256) % 251).astype(np.uint8), "wrapped"),
                    {"x": Value(IMAGE, X)}, Value(IMAGE, Y)),
            Example(Table("y", "x", (np.arange(4096) % 251).astype(np.uint8)[None], "wrapped"),
                    {"x": Value(IMAGE, WIDE)}, Value(IMAGE, Y)),
            Example(Table("y", "x", (np.arange(4096)[None] * 7 % 4095 - 2048).astype(np.int16), "wrapped"),
                    {"x": Value(IMAGE, WIDE)}, Value(IMAGE, WIDE)),
        ),
    ),
    Threshold: Record(
        does="codes by comparison of sums, or of floats, with thresholds",
        equations="16",
        reads=reads_one,
        takes=frozenset({"sums", "float32"}),
        writes="codes",
        wide="no",
        check=fits.same,
        reference=_threshold,
        sums=None,
        rescaling=None,
        limits={},
        work=nothing,
        float_work=nothing,
        holds=_thresholds_held,
        computes=("conv", "linear"),
        layer=None,
        examples=lambda: (
            Example(Threshold("y", "t", np.array([[-900, 7], [-50, 800], [0, 1], [5, 5]], np.int32),
                              np.array([1, -1, 1, -1], np.int8), np.array([0, 2, 9], np.uint8), 1),
                    {"t": Value((None, 4), SUMS)}, Value((None, 4), _LEVELS)),
            Example(Threshold("y", "x", np.array([[-0.5, 0.1, 0.7]], np.float32), np.ones(1, np.int8),
                              np.array([0, 2, 3, 200], np.uint8), 3), {"x": Value(IMAGE, None)}, Value(IMAGE, _LEVELS)),
        ),
    ),
}

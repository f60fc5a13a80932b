"""Operators on whole rows: softmax and its logarithm, layer norm, embeddings."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from torch import nn

from fewbits.errors import ProgramError
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import parse
from fewbits.program import requantize as constants
from fewbits.program.functions import EMPTY, Empty
from fewbits.program.node import ProgramNode
from fewbits.program.ops import fits
from fewbits.program.ops.record import (
    Example,
    Held,
    Operations,
    Record,
    always,
    called,
    holds_nothing,
    reads_one,
)
from fewbits.program.ops.samples import SHARES, WIDE, X, Y, codes
from fewbits.program.ops.steps import Codes, f32, saturate
from fewbits.program.ops.work import multiply, nothing, numbers, requantized, together
from fewbits.program.value import Scope, Value

__all__ = ["Embedding", "LayerNorm", "LogSoftmax", "Softmax"]


@dataclass(frozen=True, eq=False)
class Softmax(ProgramNode):
    """Of factor · input, over the last axis (eq. 13). mask: uint8, broadcastable to the input; where it is 0 the
    result is 0; None for none; seen: a value of truth values that is such a mask, in its place; empty: what a row gives
    in which nothing is seen."""

    input: str
    mask: np.ndarray | None
    factor: float
    low: int
    high: int
    seen: str | None = None
    empty: Empty = "zero"


@dataclass(frozen=True, eq=False)
class LogSoftmax(ProgramNode):
    """Over the last axis (eq. 26)."""

    input: str
    low: int
    high: int


About = Literal["mean", "zero"]


@dataclass(frozen=True, eq=False)
class LayerNorm(ProgramNode):
    """Over the last `axes` axes (eq. 14). gain, shift: float32, broadcastable to the input; epsilon: in units of the
    input, squared; about: what the numbers are measured from, their mean or 0 (an RMS norm)."""

    input: str
    gain: np.ndarray
    shift: np.ndarray
    epsilon: float
    low: int
    high: int
    axes: int = 1
    about: About = "mean"


@dataclass(frozen=True, eq=False)
class Embedding(ProgramNode):
    """Rows of a table by number. input: int64 [...]; table: codes [rows, K], in the output's encoding."""

    input: str
    table: Quantized


# ------------------------------------------------------------------------------- the definition


def _softmax(program: Scope, node: Softmax, x: Codes, *given: np.ndarray) -> Codes:
    y, table = program.encoding(node.name), constants.exponentials(program.encoding(node.input), node.factor)
    q = x.astype(np.int64) - program.encoding(node.input).format.low
    mask = given[0] if given else node.mask
    if mask is None:
        steps = q.max(-1, keepdims=True) - q
    else:
        seen = np.broadcast_to(mask, q.shape) != 0
        some = seen.any(-1, keepdims=True)
        if node.empty != "zero":
            q, seen = np.where(some | (node.empty == "scores"), q, 0), seen | ~some
        steps = np.where(seen, np.where(seen, q, -1).max(-1, keepdims=True) - q, len(table) - 1)
    powers = table[steps].astype(np.int64)
    share = powers.astype(f32) / np.maximum(powers.sum(-1, keepdims=True), 1).astype(f32)
    return saturate(share / y.scale, int(y.zero_point), node.low, node.high, y)


def _log_softmax(program: Scope, node: LogSoftmax, x: Codes) -> Codes:
    x_encoding, y = program.encoding(node.input), program.encoding(node.name)
    below = x.max(-1, keepdims=True).astype(np.int64) - x
    total = constants.exponentials(x_encoding, 1.0)[below].astype(np.int64).sum(-1, keepdims=True)
    unit = 2**constants.SOFTMAX_BITS
    whole, part = constants.logarithms()
    high = total // unit
    logarithm = whole[high] + part[(total // high - unit) // 2**10]
    fine = -(constants.steps_below(x_encoding)[below] + logarithm)
    v = fine.astype(f32) * f32(2.0**-constants.LOG_BITS) / y.scale
    return saturate(v, int(y.zero_point), node.low, node.high, y)


def _layer_norm(program: Scope, node: LayerNorm, x: Codes) -> Codes:
    y, q, axes = program.encoding(node.name), x.astype(np.int64), tuple(range(-node.axes, 0))
    length = program.count(node.input, axes)
    if node.about == "zero":
        q = q - int(program.encoding(node.input).zero_point)
    total, squares = q.sum(axes, keepdims=True), (q * q).sum(axes, keepdims=True)
    total = total if node.about == "mean" else np.zeros_like(total)
    variance = (length * squares - total * total).astype(f32)
    deviation = np.sqrt(variance + constants.integer_epsilon(program.encoding(node.input), node.epsilon, length))
    normal = (length * q - total).astype(f32) / deviation
    return saturate((normal * node.gain + node.shift) / y.scale, int(y.zero_point), node.low, node.high, y)


def lookup(program: Scope, node: Embedding, rows: np.ndarray) -> Codes:
    """Raises ProgramError for row numbers that the table does not have."""
    count = len(node.table.codes)
    if rows.size and not (rows.min() >= 0 and rows.max() < count):
        raise ProgramError(f"input {node.input!r} numbers rows {rows.min()} to {rows.max()}, but "
                           f"{node.name!r} has rows 0 to {count - 1}")
    return node.table.codes[rows]


# ------------------------------------------------------------------------------- what is known of it


def _check_softmax(program: Scope, node: Softmax) -> None:
    if program.kind(node.input) != "codes":
        raise ProgramError(f"node {node.name!r} cannot read {node.input!r}: a Softmax is of codes")
    if node.seen is not None and (node.mask is not None or program.kind(node.seen) != "bool"):
        raise ProgramError(f"node {node.name!r} has two masks, or one that holds no truth values")
    fits.same(program, node)


def _shares_work(program: Scope, node: Softmax | LogSoftmax) -> Operations:
    return together({"add int32": numbers(program, node.input), "multiply fp32": numbers(program, node.name)},
                    requantized(program, node))


def _shares_float_work(program: Scope, node: Softmax | LogSoftmax) -> Operations:
    return {"add fp32": numbers(program, node.input), "multiply fp32": 2 * numbers(program, node.name)}


def _norm_work(program: Scope, node: LayerNorm) -> Operations:
    read, written = numbers(program, node.input), numbers(program, node.name)
    return together({multiply(program, node.input): read, "add int32": 2 * read, "multiply fp32": 2 * written,
                     "add fp32": 2 * written}, requantized(program, node))


def _norm_float_work(program: Scope, node: LayerNorm) -> Operations:
    read = numbers(program, node.input)
    return {"add fp32": 4 * read, "multiply fp32": 3 * read}


def _rows_held(node: Embedding) -> tuple[Held, ...]:
    entries = node.table.codes
    return (Held("table", entries.shape, "", entries.nbytes, "what each code, or each row, becomes"),)


_SEQUENCE = (None, 4, 6)
_LOGARITHMS = Encoding(parse("uint8"), 0.05, 255)

RECORDS = {
    Softmax: Record(
        does="softmax over the last axis, scaled and masked",
        equations="13",
        reads=lambda node: (node.input,) if node.seen is None else (node.input, node.seen),
        takes=frozenset({"codes", "bool"}),
        writes="codes",
        wide="reads",
        check=_check_softmax,
        reference=_softmax,
        sums=None,
        rescaling=None,
        limits={"softmax": always},
        work=_shares_work,
        float_work=_shares_float_work,
        holds=holds_nothing,
        computes=("softmax", "masked_softmax"),
        layer=called(lambda x: x.softmax(-1)),
        examples=lambda: (
            Example(Softmax("y", "x", None, 1.0, 0, 255), {"x": Value(_SEQUENCE, X)}, Value(_SEQUENCE, SHARES)),
            Example(Softmax("y", "x", np.tri(4, 6, 1, dtype=np.uint8), 0.35, 0, 255), {"x": Value(_SEQUENCE, X)},
                    Value(_SEQUENCE, SHARES)),
            Example(Softmax("y", "x", np.tri(4, 6, 1, dtype=np.uint8), 0.35, 0, 255), {"x": Value(_SEQUENCE, WIDE)},
                    Value(_SEQUENCE, SHARES)),
            *(Example(Softmax("y", "x", None, 0.35, 0, 255, "m", empty),
                      {"x": Value(_SEQUENCE, X), "m": Value((None, 1, 6), None, "bool")}, Value(_SEQUENCE, SHARES))
              for empty in EMPTY),
        ),
    ),
    LogSoftmax: Record(
        does="logarithm of a softmax over the last axis",
        equations="26",
        reads=reads_one,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="no",
        check=fits.same,
        reference=_log_softmax,
        sums=None,
        rescaling=None,
        limits={"log softmax": always},
        work=_shares_work,
        float_work=_shares_float_work,
        holds=holds_nothing,
        computes=("log_softmax",),
        layer=called(lambda x: x.log_softmax(-1)),
        examples=lambda: (
            Example(LogSoftmax("y", "x", 0, 255), {"x": Value(_SEQUENCE, X)}, Value(_SEQUENCE, _LOGARITHMS)),),
    ),
    LayerNorm: Record(
        does="layer norm or RMS norm over the last axes; group and instance norm behind a reshape",
        equations="14",
        reads=reads_one,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="reads",
        check=fits.same,
        reference=_layer_norm,
        sums=None,
        rescaling=None,
        limits={"layer norm": always},
        work=_norm_work,
        float_work=_norm_float_work,
        holds=holds_nothing,
        computes=("layer_norm", "group_norm", "rms_norm"),
        layer=lambda channels, height, width: nn.LayerNorm([height, width]),
        examples=lambda: (
            Example(LayerNorm("y", "x", np.linspace(0.5, 2, 6, dtype=np.float32),
                              np.linspace(-1, 1, 6, dtype=np.float32), 1e-5, 0, 255),
                    {"x": Value(_SEQUENCE, X)}, Value(_SEQUENCE, Encoding(parse("uint8"), 0.03, 120))),
            *(Example(LayerNorm("y", "x", np.linspace(0.5, 2, 6, dtype=np.float32),
                                np.linspace(-1, 1, 6, dtype=np.float32), 1e-5, 0, 255, about=about),
                      {"x": Value(_SEQUENCE, WIDE)}, Value(_SEQUENCE, Encoding(parse("uint8"), 0.03, 120)))
              for about in get_args(About)),
            Example(LayerNorm("y", "x", np.linspace(0.5, 2, 4, dtype=np.float32).reshape(4, 1, 1),
                              np.zeros((4, 1, 1), np.float32), 1e-3, 0, 255, axes=2),
                    {"x": Value((None, 4, 2, 3), X)},
                    Value((None, 4, 2, 3), Encoding(parse("uint8"), 0.03, 120))),
            Example(LayerNorm("y", "x", np.linspace(0.5, 2, 6, dtype=np.float32), np.zeros(6, np.float32), 1e-5, 0, 255,
                              about="zero"),
                    {"x": Value(_SEQUENCE, X)}, Value(_SEQUENCE, Encoding(parse("uint8"), 0.03, 120))),
        ),
    ),
    Embedding: Record(
        does="rows of a table by number",
        equations="",
        reads=reads_one,
        takes=frozenset({"int64"}),
        writes="codes",
        wide="no",
        check=fits.rows,
        reference=lookup,
        sums=None,
        rescaling=None,
        limits={},
        work=nothing,
        float_work=nothing,
        holds=_rows_held,
        computes=("embedding",),
        layer=None,
        examples=lambda: (
            Example(Embedding("y", "x", codes((9, 4), Y)), {"x": Value((None, 3), None, "int64")},
                    Value((None, 3, 4), Y)),),
    ),
}

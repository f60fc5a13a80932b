"""The second: the node and its record."""

from dataclasses import dataclass

import numpy as np
import torch

from fewbits.program.node import ProgramNode
from fewbits.program.ops.record import Example, Record, always, called, holds_nothing, reads_two, unchecked
from fewbits.program.ops.samples import IMAGE, X, Y
from fewbits.program.ops.steps import Codes, saturate
from fewbits.program.ops.work import numbers
from fewbits.program.value import Scope, Value


@dataclass(frozen=True, eq=False)
class Hypotenuse(ProgramNode):
    """√(a² + b²) of two values of any encodings, broadcast."""

    first: str
    second: str
    low: int
    high: int


def _hypotenuse(program: Scope, node: Hypotenuse, a: Codes, b: Codes) -> Codes:
    y = program.encoding(node.name)
    first, second = program.encoding(node.first).decode(a), program.encoding(node.second).decode(b)
    return saturate(np.sqrt(first * first + second * second) / y.scale, int(y.zero_point), node.low, node.high, y)


def _work(program: Scope, node: Hypotenuse) -> dict[str, float]:
    return {"multiply fp32": 5 * numbers(program, node.name), "add fp32": numbers(program, node.name)}


RECORDS = {
    Hypotenuse: Record(
        does="the length of the hypotenuse over two activations",
        equations="99",
        reads=reads_two,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="no",
        check=unchecked,
        reference=_hypotenuse,
        sums=None,
        rescaling=None,
        limits={"hypotenuse": always},
        work=_work,
        float_work=_work,
        holds=holds_nothing,
        computes=("hypotenuse",),
        layer=called(lambda x: torch.hypot(x, x.flip(3))),
        examples=lambda: (Example(Hypotenuse("y", "a", "b", 0, 255), {"a": Value(IMAGE, X), "b": Value(IMAGE, Y)},
                                  Value(IMAGE, Y)),),
    ),
}

"""What some targets have no definition of. A profile lists the names; all nodes that meet one are told at once."""

import math
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any

from fewbits.errors import LoweringError
from fewbits.program import nodes as op
from fewbits.program.program import Program
from fewbits.program.windows import positions

Meets = Callable[[Program, Any], bool]


def _broadcasts(program: Program, node: op.Add | op.Mul) -> bool:
    return program.values[node.first].shape != program.values[node.second].shape


def _divides_otherwise(program: Program, node: op.AveragePool) -> bool:
    """Whether a window's sum is divided by fewer numbers than it holds, or by more than it has positions."""
    sizes = tuple(size or 0 for size in program.values[node.input].shape[2:])
    held = positions(sizes, node.kernel, node.stride, node.padding)
    return bool((node.counts < held).any() or (node.counts > math.prod(node.kernel)).any())


LIMITS: Mapping[str, tuple[type | UnionType, Meets]] = {
    "softmax": (op.Softmax, lambda program, node: True),
    "layer norm": (op.LayerNorm, lambda program, node: True),
    "log softmax": (op.LogSoftmax, lambda program, node: True),
    "quotient of two activations": (op.Quotient, lambda program, node: True),
    "function of one number": (op.Table, lambda program, node: True),
    "product of two activation matrices": (op.MatMul, lambda program, node: True),
    "average with a divisor of its own": (op.AveragePool, _divides_otherwise),
    "convolution over three axes": (op.Conv, lambda program, node: len(node.stride) == 3),
    "broadcast sum or product": (op.Add | op.Mul, _broadcasts),
    "difference": (op.Add, lambda program, node: node.subtract),
    "mean over anything but the image": (
        op.Mean, lambda program, node: node.axes != (2, 3) or len(program.values[node.input].shape) != 4),
}
"""Kind of node, and which nodes of it meet the limit."""


def check_limits(program: Program) -> None:
    """Raises LoweringError, naming every node the program's profile has no definition of."""
    met = []
    for limit in program.profile.lacks:
        kind, meets = LIMITS[limit]
        names = [repr(node.name) for node in program.nodes if isinstance(node, kind) and meets(program, node)]
        if names:
            met.append(f"{limit} ({', '.join(names)})")
    if met:
        raise LoweringError(f"profile {program.profile.name} has no definition of {'; '.join(met)}: change the model "
                            "there, or choose a profile that has, such as onnxruntime or tensorrt")

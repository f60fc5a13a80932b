"""Whether every sum of a program, and what requantisation makes of it, fits the profile's integers."""

from fewbits.errors import LoweringError
from fewbits.program import rescale
from fewbits.program.accumulator import Summing, accumulator_bound, interval
from fewbits.program.fixed_point import Fixed
from fewbits.program.nodes import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Larger,
    Linear,
    MatMul,
    Mean,
    Mul,
    Node,
    Requantize,
    reads,
)
from fewbits.program.parts import parts
from fewbits.program.program import Program

_FITS = 2**31 - 2**16  # leaves room for a zero point


def check_sums(program: Program) -> None:
    """Raises LoweringError, naming the node, for sums of more bits than the profile adds in (docs/numerics.md, eq. 9),
    parts included (eq. 23), and for what leaves 32 bits when it is shifted left on the way to codes (eq. 18)."""
    for node in program.nodes:
        if isinstance(node, Summing):
            _check_width(program, node)
        if program.profile.rescaling != "float" and not (program.is_accumulator(node.name)
                                                         or program.is_float(node.name)):
            _check_shift(program, node)


def _check_width(program: Program, node: Summing) -> None:
    profile, needed = program.profile, accumulator_bound(program, node).bits
    kept = program.is_accumulator(node.name)
    available = min(profile.sum_bits, profile.accumulator.bits) if kept else profile.sum_bits
    if needed <= available:
        return
    if profile.split and isinstance(node, Conv | Linear) and needed <= profile.accumulator.bits:
        if parts(program, node, profile.sum_bits) is None:
            raise LoweringError(f"one product of {node.name!r} needs more than the {profile.sum_bits} bits of profile "
                                f"{profile.name}: use fewer bits")
        return
    mend = ("`outputs: quantized`, or fewer bits" if kept and needed <= profile.sum_bits
            else "fewer bits" if profile.split or profile.sum_bits >= profile.accumulator.bits
            else f"fewer bits, or profile {profile.name}-split")
    raise LoweringError(f"{node.name!r} needs sums of {needed} bits, but profile {profile.name} has {available}: "
                        f"use {mend}")


def _check_shift(program: Program, node: Node) -> None:
    factor, magnitude = _rescaled(program, node)
    if factor is None:
        return
    if rescale.rounding_of(program.profile, node) == "double":
        grows = magnitude << factor.left >= _FITS
    else:  # shifted to the right only, in 64 bits
        grows = magnitude >= 2**47 or factor.left > 7 or magnitude * 2.0 ** float(factor.shift.max()) >= _FITS
    if grows:
        raise LoweringError(f"{node.name!r} grows beyond 32 bits on its way to codes under profile "
                            f"{program.profile.name}: its output's scale is far finer than its sums'; "
                            "calibrate on data that is like what it will see")


def _rescaled(program: Program, node: Node) -> tuple[Fixed | None, int]:
    """The factor by which a node's integers become codes, None where there is none, and their largest magnitude."""
    profile = program.profile

    def reach(name: str) -> int:
        low, high = interval(program.encoding(name))
        return max(-low, high)

    y = program.encoding(node.name)
    match node:
        case Conv() | Linear():
            factor = rescale.dot(profile, program.encoding(node.input), node.weight.encoding, y)
            magnitude = accumulator_bound(program, node).magnitude
        case Mean():
            count = program.count(node.input, node.axes)
            factor = rescale.mean(profile, program.encoding(node.input), y, count)
            magnitude = accumulator_bound(program, node).magnitude
        case MatMul():
            factor = rescale.matrix_product(profile, program.encoding(node.first), program.encoding(node.second), y)
            magnitude = accumulator_bound(program, node).magnitude
        case Mul():
            factor = rescale.product(profile, program.encoding(node.first), program.encoding(node.second), y)
            magnitude = reach(node.first) * reach(node.second)
        case Add():
            raised, _, _, factor = rescale.addition(profile, program.encoding(node.first),
                                                    program.encoding(node.second), y)
            magnitude = max(reach(node.first), reach(node.second)) << raised
        case Concat() | Requantize() | AveragePool() | Larger():
            names = reads(node)
            worst = max(names, key=lambda name: float(program.encoding(name).scale))
            factor, magnitude = rescale.regrid(program.encoding(worst), y), max(map(reach, names))
        case _:
            return None, 0
    return (factor if isinstance(factor, Fixed) else None), magnitude

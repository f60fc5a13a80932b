"""Whether every sum of a program, and what requantisation makes of it, fits the profile's integers."""

from fewbits.errors import LoweringError
from fewbits.program import rescale
from fewbits.program.fixed_point import Fixed
from fewbits.program.node import ProgramNode
from fewbits.program.ops import Conv, Linear, accumulator_bound, record_of
from fewbits.program.ops.record import Rescaling
from fewbits.program.parts import parts
from fewbits.program.program import Program

_FITS = 2**31 - 2**16  # leaves room for a zero point


def check_sums(program: Program) -> None:
    """Raises LoweringError, naming the node, for sums of more bits than the profile adds in (docs/numerics.md, eq. 9),
    parts included (eq. 23), and for what leaves 32 bits when it is shifted left on the way to codes (eq. 18)."""
    for node in program.everything:
        record = record_of(node)
        if record.sums is not None:
            _check_width(program, node)
        in_integers = program.profile.rescaling != "float" and program.kind(node.name) == "codes"
        if record.rescaling is not None and in_integers:
            _check_shift(program, node, record.rescaling)


def _check_width(program: Program, node: ProgramNode) -> None:
    profile, needed = program.profile, accumulator_bound(program, node).bits
    kept = program.is_accumulator(node.name)
    available = min(profile.sum_bits, profile.accumulator.bits) if kept else profile.sum_bits
    if needed <= available:
        return
    if profile.split and isinstance(node, Conv | Linear) and needed <= profile.accumulator.bits:
        if parts(node.weight, program.encoding(node.input), profile.sum_bits) is None:
            raise LoweringError(f"one product of {node.name!r} needs more than the {profile.sum_bits} bits of profile "
                                f"{profile.name}: use fewer bits")
        return
    mend = ("`outputs: quantized`, or fewer bits" if kept and needed <= profile.sum_bits
            else "fewer bits" if profile.split or profile.sum_bits >= profile.accumulator.bits
            else f"fewer bits, or profile {profile.name}-split")
    raise LoweringError(f"{node.name!r} needs sums of {needed} bits, but profile {profile.name} has {available}: "
                        f"use {mend}")


def _check_shift(program: Program, node: ProgramNode, rescaling: Rescaling) -> None:
    factor, magnitude = rescaling.factor(program, node), rescaling.reach(program, node)
    assert isinstance(factor, Fixed), "integer profiles rescale by a multiplier and a shift"
    if rescale.rounding(program.profile, rescaling.role) == "double":
        grows = magnitude << factor.left >= _FITS
    else:  # shifted to the right only, in 64 bits
        grows = magnitude >= 2**47 or factor.left > 7 or magnitude * 2.0 ** float(factor.shift.max()) >= _FITS
    if grows:
        raise LoweringError(f"{node.name!r} grows beyond 32 bits on its way to codes under profile "
                            f"{program.profile.name}: its output's scale is far finer than its sums'; "
                            "calibrate on data that is like what it will see")

"""What an engine gives, held against what the reference gives: the one comparison, of exports, replays and reports.

A program without float islands is compared whole: every code, and every float32 number by its bits. One with islands is
cut (program/islands.py), and each half is fed the reference's own numbers at the cut:

- `integers`: no code and no bit may differ;
- `islands`: floats lie within TOLERANCE of the largest number of a value and its operands (NaN where the reference has
  NaN), and codes behind an island's own quantizer at most one step off, which is counted as near; of and behind a
  recurrence that rounds floats within its steps both are wider (TOLERANCE_OF_STEPS);
- `whole`: the program from its own inputs. Nothing is promised where an island moved a code; floats are held to
  TOLERANCE, codes are counted by their bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fewbits.engines.engine import Arrays, Results
from fewbits.options import options_checked
from fewbits.program.float_calls import TOLERANCE
from fewbits.program.islands import float_half, integer_half, shares, tolerances
from fewbits.program.program import Program
from fewbits.program.value import PLAIN

Extent = Literal["integers", "islands", "whole"]


@options_checked
@dataclass(frozen=True)
class Part:
    """A program to compare, or half of one, and what is promised of it."""

    program: Program
    extent: Extent

    @cached_property
    def tolerances(self) -> Mapping[str, float]:
        """By value, how far its floats may be off."""
        return tolerances(self.program)

    def steps(self, name: str) -> int:
        """How many steps the codes of a value may be off behind an island."""
        return 1 if self.tolerances[name] == TOLERANCE else round(256 * self.tolerances[name])


def parts_of(program: Program) -> tuple[Part, ...]:
    """The program alone where it has no islands; else both halves, where they hold anything, and the whole."""
    if not program.has_islands:
        return (Part(program, "integers"),)
    halves = Part(integer_half(program), "integers"), Part(float_half(program), "islands"), Part(program, "whole")
    return tuple(part for part in halves if part.program.nodes)


@dataclass(frozen=True)
class Difference:
    """One value as the reference has it and as an engine gives it.

    compared: numbers; differing: those that break what is promised; signs: of these, zeros of the other sign, which
    are the same number; near: codes behind an island one step off, which is allowed; largest: in steps of the value's
    grid, or of floats as a share of the largest number, NaN left out; shape: the engine's, where it is another: then
    all differ.
    """

    value: str
    compared: int
    differing: int
    signs: int
    near: int
    largest: float
    shape: tuple[int, ...] | None = None


def value_differences(part: Part, known: Arrays, results: Results) -> tuple[Difference, ...]:
    """Every value that an engine gives, in the program's order, codes before the numbers of an output.

    known: what the reference gives. Numbers of an output that stand for codes behind an island are left out where the
    codes were given too.
    """
    found = []
    for name in (*part.program.inputs, *part.program.by_name):
        if name in results.codes:
            found.append(difference(part, name, known, results.codes[name]))
        counted = part.extent == "islands" and name in results.codes and not part.program.is_float(name)
        if name in results.numbers and not counted:
            found.append(difference_of_numbers(part, name, known, results.numbers[name]))
    return tuple(found)


def difference(part: Part, name: str, known: Arrays, actual: np.ndarray) -> Difference:
    """Codes or sums of a value; of a value without an encoding what it is."""
    expected = known[name]
    if part.program.kind(name) in PLAIN:
        return difference_of_numbers(part, name, known, actual)
    if expected.shape != actual.shape:
        return _misshapen(name, actual)
    return _stepped(part, name, np.abs(expected.astype(np.int64) - actual).astype(np.float64))


def difference_of_numbers(part: Part, name: str, known: Arrays, actual: np.ndarray) -> Difference:
    """float32 numbers of a value: what its codes stand for, or what a float value is; integers and truth values that
    are no codes as they are."""
    program, expected = part.program, part.program.real(name, known[name])
    if expected.shape != actual.shape:
        return _misshapen(name, actual)
    coded = program.values[name].encoding is not None
    if not coded and expected.dtype != np.float32:
        return Difference(name, expected.size, int(np.count_nonzero(expected != actual)), 0, 0, 0.0)
    if part.extent == "islands" and coded:
        steps = np.rint(program.steps_between(name, expected, actual))
        return _stepped(part, name, np.where(np.isnan(steps), np.inf, steps))
    if part.extent != "integers" and not coded:
        share = shares(program, name, known, actual)
        return Difference(name, share.size, int(np.count_nonzero(share > part.tolerances[name])), 0, 0,
                          float(share.max(initial=0)))
    with np.errstate(invalid="ignore"):
        away = (program.steps_between(name, expected, actual) if coded
                else np.abs(expected.astype(np.float64) - actual))
    bits = np.ascontiguousarray(expected).view(np.uint32) != np.ascontiguousarray(actual).view(np.uint32)
    return Difference(name, bits.size, int(np.count_nonzero(bits)), int(np.count_nonzero(bits & (expected == actual))),
                      0, float(np.where(np.isnan(away), 0, away).max(initial=0)))


def _stepped(part: Part, name: str, steps: np.ndarray) -> Difference:
    """By how many steps codes are off."""
    if part.extent != "islands":
        return Difference(name, steps.size, int(np.count_nonzero(steps)), 0, 0, float(steps.max(initial=0)))
    near, allowed = steps > 0, part.steps(name)
    return Difference(name, steps.size, int(np.count_nonzero(steps > allowed)), 0,
                      int(np.count_nonzero(near & (steps <= allowed))), 0.0)


def _misshapen(name: str, actual: np.ndarray) -> Difference:
    size = max(actual.size, 1)
    return Difference(name, size, size, 0, 0, float("inf"), actual.shape)

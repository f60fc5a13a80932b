"""The engine that runs a program where nobody names one: of those that give the reference's codes, the fastest here.

First by rule, which costs nothing: the native kernels where they use vector instructions, else torch (portable C took 2
to 7 times as long as torch). A program that has run for LONG is measured once on every exact engine, on some rows of
the batch at hand, and goes on on the fastest; the choice is kept on disk (kept_choices.py) for the next process. All
that are compared give the same codes, so nothing but time depends on it. Programs with float islands stay on what the
rule says: their float32 numbers may differ from engine to engine, and the same call is to give the same numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch

from fewbits.engines import kept_choices
from fewbits.engines.engine import Arrays, Engine, Prepared, Results
from fewbits.engines.executors import Native, Torch
from fewbits.engines.onnxruntime import OnnxRuntime
from fewbits.engines.processor import this_processor
from fewbits.kernels import library
from fewbits.program.ops import Constant, Dequantize, FloatCall, FloatConstant, accumulator_bound
from fewbits.program.program import Program

Given = TypeVar("Given", Results, Arrays)

LONG = 5.0
"""Seconds that a program has run before it pays to measure: preparing the other engines takes one or two."""
_ROWS = 8
_ROUNDS = 3
_NO_VECTORS = ("numpy", "portable")
_EXACT = 2**23  # below which float32 numbers tell the sums that they stand for


@dataclass(frozen=True)
class Fastest(Engine):
    """Chooses among torch, native and onnxruntime for each program; on as many threads as torch uses."""

    name = "fastest"
    promises = True

    def prepared(self, program: Program, keep: tuple[str, ...]) -> Prepared:
        return Chosen(program, keep)


class Chosen(Prepared):
    """A program on the engine that is chosen for it. engine: which runs it now; reason: why, in words."""

    def __init__(self, program: Program, keep: tuple[str, ...] = ()):
        self.program, self._keep = program, keep
        self.engine, self.reason = by_rule(program)
        self._others = () if keep else _others(program, self.engine)
        self._spent, self._key = 0.0, _key(program) if self._others else ""
        known = kept_choices.known(self._key) if self._others else None
        for other in self._others:
            if known is not None and other.name == known.engine:
                self.engine = other
        if known is not None and known.engine == self.engine.name:
            self.reason, self._others = known.reason, ()
        self._prepared = self.engine.prepare(program, keep)

    def run(self, inputs: Arrays) -> Results:
        return self._weighed(self._prepared.run, inputs)

    def numbers(self, inputs: Arrays) -> Arrays:
        """As the engine gives them."""
        return self._weighed(self._prepared.numbers, inputs)

    def _weighed(self, call: Callable[[Arrays], Given], inputs: Arrays) -> Given:
        """What the engine gives; its time counts while there are others to choose from."""
        if not self._others:
            return call(inputs)
        begun = perf_counter()
        results = call(inputs)
        self._weigh(perf_counter() - begun, inputs)
        return results

    def _weigh(self, seconds: float, inputs: Arrays) -> None:
        """Measures, once it pays."""
        self._spent += seconds
        if not self._others or self._spent < LONG:
            return
        others, self._others = self._others, ()
        self.engine, self.reason, self._prepared = _measured(self.program, self.engine, self._prepared, others,
                                                             _some_rows(self.program, inputs))
        kept_choices.keep(self._key, kept_choices.Choice(self.engine.name, self.reason))


def by_rule(program: Program) -> tuple[Engine, str]:
    """The engine for a program that nobody has measured, and why it."""
    threads = torch.get_num_threads()
    native, level = Native(threads), library.level()
    if native.refusal(program):
        return Torch(), "by rule: there are no native kernels here"
    if level in _NO_VECTORS:
        return Torch(), f"by rule: the native kernels are at level {level}, without vector instructions"
    if _mostly_float(program):
        return Torch(), "by rule: most of the program is left in float"
    return native, f"by rule: native kernels at level {level}"


def _mostly_float(program: Program) -> bool:
    still = (Constant, FloatConstant, Dequantize)
    floats = sum(isinstance(node, FloatCall) for node in program.everything)
    return 2 * floats > sum(not isinstance(node, still) for node in program.everything)


def _others(program: Program, first: Engine) -> tuple[Engine, ...]:
    """What else gives its codes."""
    if program.has_islands:
        return ()
    threads = torch.get_num_threads()
    found: list[Engine] = [Native(threads), Torch()]
    if all(not program.is_accumulator(name)
           or accumulator_bound(program, program.by_name[name]).magnitude < _EXACT for name in program.outputs):
        found.append(OnnxRuntime(threads=threads))
    return tuple(each for each in found if each.name != first.name and not each.refusal(program))


def _measured(program: Program, first: Engine, prepared: Prepared, others: Sequence[Engine],
              inputs: Arrays) -> tuple[Engine, str, Prepared]:
    """The fastest, in turns, by the shortest of some runs."""
    found = [(first, prepared), *((other, other.prepare(program)) for other in others)]
    for _, each in found:
        each.numbers(inputs)
    times = [float("inf")] * len(found)
    for _ in range(_ROUNDS):
        for number, (_, each) in enumerate(found):
            begun = perf_counter()
            each.numbers(inputs)
            times[number] = min(times[number], perf_counter() - begun)
    told = ", ".join(f"{engine.name} {1000 * time:.2f} ms" for (engine, _), time in zip(found, times, strict=True))
    best = int(np.argmin(times))
    return found[best][0], f"measured on this processor: {told}", found[best][1]


def _some_rows(program: Program, inputs: Arrays) -> Arrays:
    """The first rows of a batch."""
    return {name: array[:_ROWS] if program.values[name].shape[:1] == (None,) else array
            for name, array in inputs.items()}


def _key(program: Program) -> str:
    """What the time of a program depends on, as text."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "numpy"))
    return (f"{program}\n{this_processor()}, level {library.level()}, {torch.get_num_threads()} threads, {versions}, "
            f"kernels {library.INTERFACE}")

"""What an engine is: something that runs programs. The engines are named in registry.py, their results compared in
compare.py."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from fewbits.errors import UnsupportedError
from fewbits.program.program import Program

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Results:
    """What one run gives, by the program's names of values.

    codes: codes, sums, or the float32 of islands, as the reference gives them; numbers: float32 numbers of outputs,
    where the engine gives what codes stand for.
    """

    codes: Arrays
    numbers: Arrays = field(default_factory=dict)


class Prepared(ABC):
    """A program made ready to run."""

    program: Program

    @abstractmethod
    def run(self, inputs: Arrays) -> Results:
        """inputs: float32 (or int64 row numbers) by the program's names, any batch size. Gives every output, as codes
        or as numbers, and codes of the values that it was prepared to keep, where the engine has them."""

    def numbers(self, inputs: Arrays) -> Arrays:
        """What the outputs stand for: float32 by name, or the integers of those that are no codes."""
        results = self.run(inputs)
        return {name: results.numbers[name] if name in results.numbers else self.program.real(name, results.codes[name])
                for name in self.program.outputs}


class Engine(ABC):
    """A way to run programs. Frozen: how it is set up are its fields; another package offers its own by an entry point
    of the group `fewbits.engines` (registry.py), and `fewbits.testing.check_engine` says whether it may be trusted.

    name: what `fb.load(path, engine=...)` calls it; promises: whether it must give the reference's codes wherever it
    runs a program.
    """

    name: str
    promises: bool

    @property
    def setting(self) -> str:
        """How it is set up, in words for a report; '' where there is nothing to say."""
        return ""

    @property
    def missing(self) -> str:
        """What it lacks to run any program here, and how to get that, in a sentence; '' where it lacks nothing."""
        return ""

    def refusal(self, program: Program) -> str:
        """Why it does not run a program, '' where it does."""
        return ""

    def prepare(self, program: Program, keep: Collection[str] = ()) -> Prepared:
        """Does once what need not be done for each batch. keep: values whose codes a run gives beside the outputs,
        where the engine has them. Raises UnsupportedError where it refuses the program, or is not installed."""
        reason = self.refusal(program)
        if reason:
            raise UnsupportedError(f"engine {self.name} does not run this program: {reason}")
        return self.prepared(program, tuple(keep))

    @abstractmethod
    def prepared(self, program: Program, keep: tuple[str, ...]) -> Prepared:
        """As `prepare`, for a program that it does not refuse."""

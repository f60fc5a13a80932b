"""What was measured of assignments: worked out by any executor, kept in a log that a later run goes on from.

The log is JSON, a line per assignment in the order they were asked for, behind a line that says which problem they are
of. It holds no times and no names of machines, so that the same search writes the same bytes, whoever worked for it and
however often it was killed.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import asdict
from math import ceil, inf, isfinite
from pathlib import Path
from typing import Any, Literal

import torch

from fewbits.errors import FewbitsError, FileError, LoweringError
from fewbits.files import read_whole, write_whole
from fewbits.limits import SEARCH_LOG_BYTES
from fewbits.options import options_checked
from fewbits.progress import track
from fewbits.search.problem import Measured, Partial, Problem

How = Literal["simulated", "program", "moved", "repaired"]
_VERSION = 3
FAILED = Measured(inf, -inf, 1, 0, 1)
"""Of an assignment that has no program, or whose evaluation failed: the log says why."""


class Evaluations:
    """Measures each assignment once. path: the log, None for none; executor: whose workers measure, None for this
    process; workers: how many there are. Raises FileError for a log of another problem."""

    def __init__(self, problem: Problem, path: Path | None = None, executor: Executor | None = None, workers: int = 1):
        self.problem, self.path, self._executor, self._workers = problem, path, executor, workers
        self._known: dict[tuple[str, Partial], Measured] = {}
        if path is not None:
            self._begin(path)

    def measured(self, assignments: Sequence[Partial], how: How = "program",
                 doing: str = "measuring") -> list[Measured]:
        """What each does, in their order."""
        name = self._name(how)
        missing = list(dict.fromkeys(each for each in assignments if (name, each) not in self._known))
        if missing:
            self.problem.encodings.find({number or 0 for each in missing for number in each})
            for assignment, (result, told) in zip(track(missing, doing), self._work(missing, how), strict=True):
                self._known[name, assignment] = result
                self._write({"how": name, "assignment": assignment, **({"failed": told} if told else _told(result))})
        return [self._known[name, each] for each in assignments]

    def _name(self, how: How) -> str:
        """As the log calls it: what was measured repaired, with the repairs."""
        return how if how != "repaired" else " ".join([how, *self.problem.space.base.repairs])

    def _work(self, assignments: list[Partial], how: How) -> Iterator[tuple[Measured, str]]:
        if self._executor is None:
            for assignment in assignments:
                yield measure(self.problem, how, [assignment])[0]
            return
        size = ceil(len(assignments) / (2 * self._workers))
        chunks = [assignments[first:first + size] for first in range(0, len(assignments), size)]
        for future in [self._executor.submit(measure, self.problem, how, chunk) for chunk in chunks]:
            yield from future.result()

    def _begin(self, path: Path) -> None:
        head = {"fewbits search": _VERSION, "problem": self.problem.digest}
        if not path.exists():
            self.problem.encodings.find()  # what is refused leaves no log behind
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, (json.dumps(head) + "\n").encode())
            return
        lines = read_whole(path, SEARCH_LOG_BYTES, "the log of a search").split(b"\n")
        if len(lines) > 1 and lines[-1]:  # the last line was not written whole
            write_whole(path, b"\n".join(lines[:-1]) + b"\n")
        try:
            first, *rest = (json.loads(line) for line in lines[:-1])
            if first != head:
                raise FileError(f"{path} is of another search: remove it, or choose another folder")
            for entry in rest:
                key = entry.pop("how"), self._assignment(entry.pop("assignment"))
                self._known[key] = FAILED if "failed" in entry else self._checked(_read(entry))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise FileError(f"{path} is damaged: remove it to search anew") from None

    def _assignment(self, numbers: list[int | None]) -> Partial:
        """Of a line of the log. Raises ValueError for what is none of this problem."""
        groups = self.problem.space.groups
        if len(numbers) != len(groups) or not all(
                number is None or (type(number) is int and 0 <= number < len(group.specs))
                for number, group in zip(numbers, groups, strict=True)):
            raise ValueError("no assignment")
        return tuple(numbers)

    def _checked(self, read: Measured) -> Measured:
        """What a line says was measured. Raises ValueError for what cannot have been."""
        count = self.problem.samples
        if not (type(read.noise) is type(read.sqnr) is float and 0 <= read.noise < inf and isfinite(read.sqnr)
                and all(type(each) is float and isfinite(each) for each in (read.along, *read.shift))
                and read.samples == count and all(type(each) is int and 0 <= each <= count for each in
                                                  (read.flips, 0 if read.right is None else read.right))):
            raise ValueError("no measurement")
        return read

    def _write(self, entry: dict[str, object]) -> None:
        if self.path is not None:
            with self.path.open("ab") as log:
                log.write((json.dumps(entry) + "\n").encode())


def _told(result: Measured) -> dict[str, object]:
    """Of a line of the log: where the noise lies only where that was measured."""
    return {name: value for name, value in asdict(result).items() if result.shift or name not in ("along", "shift")}


def _read(entry: dict[str, Any]) -> Measured:
    shift = tuple(entry.pop("shift", ()))
    return Measured(**entry, shift=shift)


@options_checked
def measure(problem: Problem, how: How, assignments: Sequence[Partial]) -> list[tuple[Measured, str]]:
    """(what it does, '') of each assignment; FAILED and why, where it has no program or its evaluation fails. Runs on
    one thread, so that no result depends on where it runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_one(problem, how, assignment) for assignment in assignments]
    finally:
        with suppress(RuntimeError):
            torch.set_num_threads(before)


def _one(problem: Problem, how: How, assignment: Partial) -> tuple[Measured, str]:
    try:
        if how == "simulated":
            return problem.simulated(assignment), ""
        whole = tuple(number or 0 for number in assignment)
        measures = {"program": problem.measured, "moved": problem.moved, "repaired": problem.repaired}
        return measures[how](whole), ""
    except LoweringError as error:
        return FAILED, str(error)
    except FewbitsError as error:
        return FAILED, f"{type(error).__name__}: {error}"

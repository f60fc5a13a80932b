"""Replaying a file's test vectors: does this machine compute what the file says?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from fewbits.artifact import vectors
from fewbits.artifact.file import Artifact, read
from fewbits.artifact.vectors import hash_codes
from fewbits.engines.compare import Part, difference, difference_of_numbers
from fewbits.engines.engine import Engine, Results
from fewbits.engines.executors import Native, Reference, Torch
from fewbits.engines.onnxruntime import OnnxRuntime
from fewbits.engines.registry import engine as engine_of
from fewbits.engines.torch.executor import walk_once
from fewbits.errors import FewbitsError, VerificationError
from fewbits.program import reference
from fewbits.program.islands import float_half, shares, tolerances

_PROMISING: tuple[Engine, ...] = (Reference(), Torch(), Native(), OnnxRuntime())

Result = TypeVar("Result")


@dataclass(frozen=True)
class Replay:
    """What one engine made of the test vectors.

    engine: its name; compared: codes of all nodes, of an engine that gives numbers (onnxruntime) those of the outputs
    too, bit for bit, and stored numbers of float islands, within their tolerance; differing: of these. Of a node whose
    codes miss the file's hash, and are neither stored nor made by the reference here, all count.
    first: the first node, in running order, that differs; None when all agree.
    """

    engine: str
    compared: int
    differing: int
    first: str | None

    def __str__(self) -> str:
        if self.first is None:
            return f"{self.engine}: all {self.compared} codes as expected"
        return f"{self.engine}: {self.differing} of {self.compared} codes differ, first in {self.first!r}"


def replayed() -> tuple[Engine, ...]:
    """The engines that a file is replayed on where nobody says which: those that promise its codes, and are here."""
    return tuple(each for each in _PROMISING if not each.missing)


def verify(source: str | Path | Artifact, engines: Sequence[str | Engine] | None = None) -> tuple[Replay, ...]:
    """Runs the file's test vectors on each engine; one Replay per engine, in that order.

    engines: names of engines/registry.py, or Engines; None for `replayed`. One that refuses the program, as ONNX
    Runtime does where its profile is none of those that it computes, is left out. Raises FileError for a file that
    cannot be read, OptionError for a name that no engine has, and VerificationError when an engine cannot run its
    program at all. A difference is not raised: it stands in the Replay.
    """
    chosen = replayed() if engines is None else [engine_of(each) for each in engines]
    artifact = source if isinstance(source, Artifact) else read(source)
    program = artifact.program
    exact = _attempt(artifact, "reference", lambda: _Exact(artifact))
    islands = _attempt(artifact, "reference", lambda: _Islands(artifact)) if program.has_islands else None

    def replay(engine: Engine) -> Replay:
        seen = exact.replay(engine)
        return seen if islands is None else _both(seen, islands.replay(engine))

    return tuple(_attempt(artifact, engine.name, partial(replay, engine)) for engine in chosen
                 if not engine.refusal(program))


def torch_disputes(artifact: Artifact) -> str | None:
    """The first node whose test vectors the torch executor does not compute as the file has them, None where it
    computes all. The slow reference runs no more than the float islands."""
    exact = vectors.exact_part(artifact.program)
    if exact.nodes:
        for name, codes in walk_once(exact, vectors.inputs(exact, artifact.program)):
            if hash_codes(codes) != artifact.vectors.hashes[name]:
                return name
    return _Islands(artifact).replay(Torch()).first if artifact.program.has_islands else None


def _both(exact: Replay, islands: Replay) -> Replay:
    return Replay(exact.engine, exact.compared + islands.compared, exact.differing + islands.differing,
                  exact.first or islands.first)


class _Exact:
    """What must be equal, code by code: the program, or its integers."""

    def __init__(self, artifact: Artifact):
        self.hashes, self.program = artifact.vectors.hashes, vectors.exact_part(artifact.program)
        self.given = vectors.inputs(self.program, artifact.program)
        self.names = list(self.program.written)
        self.definition = reference.run(self.program, self.given, self.names)
        self.known = {name: codes for name, codes in self.definition.items() if hash_codes(codes) == self.hashes[name]}
        self.known |= artifact.vectors.outputs

    def replay(self, engine: Engine) -> Replay:
        """Codes of every node, and the numbers of outputs from the program as users run it."""
        if not self.names:
            return Replay(engine.name, 0, 0, None)
        results = engine.prepare(self.program, self.names).run(self.given)
        if results.numbers:
            results = Results(results.codes, engine.prepare(self.program).run(self.given).numbers)
        compared, differing, first = 0, 0, None
        for name in self.names:
            wrong = 0
            if name in results.codes:
                compared += results.codes[name].size
                wrong += self._wrong_codes(name, results.codes[name])
            if name in results.numbers:
                compared += results.numbers[name].size
                wrong += self._wrong_numbers(name, results.numbers[name])
            differing, first = differing + wrong, first or (name if wrong else None)
        return Replay(engine.name, compared, differing, first)

    def _wrong_codes(self, name: str, got: np.ndarray) -> int:
        """How many differ; all of them where a hash that is missed is the only witness."""
        agrees = hash_codes(got) == self.hashes[name]
        counted = difference(self._part, name, self.known, got).differing if name in self.known else 0
        return counted or (0 if agrees else max(got.size, 1))

    def _wrong_numbers(self, name: str, got: np.ndarray) -> int:
        known = name in self.known
        return difference_of_numbers(self._part, name, self.known, got).differing if known else max(got.size, 1)

    @property
    def _part(self) -> Part:
        return Part(self.program, "integers")


class _Islands:
    """What must be met within a tolerance: the stored numbers of each result of an island."""

    def __init__(self, artifact: Artifact):
        self.program, self.samples = float_half(artifact.program), artifact.vectors.samples
        self.given = vectors.inputs(self.program, artifact.program)
        self.definition = vectors.run_all(self.program, self.given)

    def replay(self, engine: Engine) -> Replay:
        values = engine.prepare(self.program, list(self.samples)).run(self.given).codes
        compared, differing, first = 0, 0, None
        known, allowed = self.given | self.definition, tolerances(self.program)
        for name, stored in self.samples.items():
            got = vectors.sample(values[name])
            compared += stored.size
            if got.shape == stored.shape:
                wrong = int((shares(self.program, name, known, got, stored) > allowed[name]).sum())
            else:
                wrong = stored.size or 1
            differing, first = differing + wrong, first or (name if wrong else None)
        return Replay(engine.name, compared, differing, first)


def _attempt(artifact: Artifact, engine: str, run: Callable[[], Result]) -> Result:
    """A file whose hashes are right may still hold a program that nobody could have lowered, such as one
    with a node that fits no shape; it fails inside the engine, in whatever way."""
    try:
        return run()
    except Exception as error:
        told = str(error) if isinstance(error, FewbitsError) else f"{type(error).__name__}: {error}"
        told = " ".join(told.split())[:200]
        raise VerificationError(f"{artifact.path} holds a program that {engine} cannot run ({told}): "
                                "lower and save it again") from error

"""Replaying a file's test vectors: does this machine compute what the file says?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from fewbits.artifact import vectors
from fewbits.artifact.file import Artifact, read
from fewbits.artifact.vectors import hash_codes
from fewbits.engines.exactness import portable_nodes
from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.processor import this_processor
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.errors import FewbitsError, VerificationError
from fewbits.options import options_checked
from fewbits.program import reference
from fewbits.program.float_calls import TOLERANCE
from fewbits.program.islands import float_half, shares
from fewbits.program.program import Program
from fewbits.writers.onnx.program import onnx_bytes, output_name

Engine = Literal["reference", "torch", "onnxruntime"]
ENGINES: tuple[Engine, ...] = ("reference", "torch", "onnxruntime")
Result = TypeVar("Result")
Codes = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Replay:
    """What one engine made of the test vectors.

    compared: codes of all nodes, for onnxruntime float outputs, bit for bit, and stored numbers of float islands,
    within their tolerance; differing: of these. Of a node whose codes miss the file's hash, and are neither stored nor
    made by the reference here, all count.
    first: the first node, in running order, that differs; None when all agree.
    """

    engine: Engine
    compared: int
    differing: int
    first: str | None

    def __str__(self) -> str:
        if self.first is None:
            return f"{self.engine}: all {self.compared} codes as expected"
        return f"{self.engine}: {self.differing} of {self.compared} codes differ, first in {self.first!r}"


@options_checked
def verify(source: str | Path | Artifact, engines: Sequence[Engine] = ENGINES) -> tuple[Replay, ...]:
    """Runs the file's test vectors on each engine; one Replay per engine, in that order. ONNX Runtime is left out
    where the program's profile is not one that it computes; it runs the program as this processor computes it right.

    Raises FileError for a file that cannot be read, and VerificationError when an engine cannot run its
    program at all. A difference is not raised: it stands in the Replay.
    """
    artifact = source if isinstance(source, Artifact) else read(source)
    program = artifact.program
    exact = _attempt(artifact, "reference", lambda: _Exact(artifact))
    islands = _attempt(artifact, "reference", lambda: _Islands(artifact)) if program.has_islands else None

    def replay(engine: Engine) -> Replay:
        seen = exact.replay(engine)
        return seen if islands is None else _both(seen, islands.replay(engine))

    return tuple(_attempt(artifact, engine, partial(replay, engine)) for engine in engines
                 if engine != "onnxruntime" or program.profile.engine == engine)


def torch_disputes(artifact: Artifact) -> str | None:
    """The first node whose test vectors the torch executor does not compute as the file has them, None where it
    computes all. The slow reference runs no more than the float islands."""
    exact = vectors.exact_part(artifact.program)
    names = [node.name for node in exact.nodes]
    if names:
        codes = TorchExecutor(exact).run(vectors.inputs(exact, artifact.program), names)
        for name in names:
            if hash_codes(codes[name]) != artifact.vectors.hashes[name]:
                return name
    return _Islands(artifact).replay("torch").first if artifact.program.has_islands else None


def _both(exact: Replay, islands: Replay) -> Replay:
    return Replay(exact.engine, exact.compared + islands.compared, exact.differing + islands.differing,
                  exact.first or islands.first)


class _Exact:
    """What must be equal, code by code: the program, or its integers."""

    def __init__(self, artifact: Artifact):
        self.hashes, self.program = artifact.vectors.hashes, vectors.exact_part(artifact.program)
        self.given = vectors.inputs(self.program, artifact.program)
        self.names = [node.name for node in self.program.nodes]
        self.definition = reference.run(self.program, self.given, self.names)
        self.known = {name: codes for name, codes in self.definition.items() if hash_codes(codes) == self.hashes[name]}
        self.known |= artifact.vectors.outputs

    def replay(self, engine: Engine) -> Replay:
        if not self.names:
            return Replay(engine, 0, 0, None)
        match engine:
            case "reference":
                codes, reals = self.definition, {}
            case "torch":
                codes, reals = TorchExecutor(self.program).run(self.given, self.names), {}
            case "onnxruntime":
                codes, reals = _run_onnx(self.program, self.given)
        return _compare(engine, self.program, self.hashes, self.known, codes, reals)


class _Islands:
    """What must be met within a tolerance: the stored numbers of each result of an island."""

    def __init__(self, artifact: Artifact):
        self.program, self.samples = float_half(artifact.program), artifact.vectors.samples
        self.given = vectors.inputs(self.program, artifact.program)
        self.definition = vectors.run_all(self.program, self.given)

    def replay(self, engine: Engine) -> Replay:
        match engine:
            case "reference":
                values = self.definition
            case "torch":
                values = TorchExecutor(self.program).run(self.given, list(self.samples))
            case "onnxruntime":
                values = _onnx(self.program, every_code=True).run(self.given)
        compared, differing, first = 0, 0, None
        known = self.given | self.definition
        for name, stored in self.samples.items():
            got = vectors.sample(values[name])
            compared += stored.size
            if got.shape == stored.shape:
                wrong = int((shares(self.program, name, known, got, stored) > TOLERANCE).sum())
            else:
                wrong = stored.size or 1
            differing, first = differing + wrong, first or (name if wrong else None)
        return Replay(engine, compared, differing, first)


def _attempt(artifact: Artifact, engine: Engine, run: Callable[[], Result]) -> Result:
    """A file whose hashes are right may still hold a program that nobody could have lowered, such as one
    with a node that fits no shape; it fails inside the engine, in whatever way."""
    try:
        return run()
    except Exception as error:
        told = str(error) if isinstance(error, FewbitsError) else f"{type(error).__name__}: {error}"
        told = " ".join(told.split())[:200]
        raise VerificationError(f"{artifact.path} holds a program that {engine} cannot run ({told}): "
                                "lower and save it again") from error


def _run_onnx(program: Program, given: Codes) -> tuple[Codes, Codes]:
    """Codes by node, from a debug copy that returns them all, and float outputs, from the model users run."""
    outputs = _onnx(program, every_code=True).run(given)
    codes = {node.name: outputs[node.name] for node in program.nodes if node.name in outputs}
    plain = _onnx(program).run(given)
    return codes, {name: plain[output_name(name)] for name in program.outputs}


def _onnx(program: Program, every_code: bool = False) -> OnnxSession:
    """The program with integer operators, as this processor computes them right."""
    portable = portable_nodes(program, "this", this_processor())
    return OnnxSession(onnx_bytes(program, "integer", every_code, portable=portable), threads=1)


def _compare(engine: Engine, program: Program, hashes: Mapping[str, bytes], known: Codes, codes: Codes,
             reals: Codes) -> Replay:
    """codes: by node, some may be absent; reals: dequantized outputs, if the engine gives them."""
    compared, differing, first = 0, 0, None
    for node in program.nodes:
        wrong = 0
        if node.name in codes:
            got = codes[node.name]
            compared += got.size
            wrong += _differing(known.get(node.name), got, hash_codes(got) == hashes[node.name])
        if node.name in reals:
            got = reals[node.name]
            compared += got.size
            wanted = known.get(node.name)
            wanted = None if wanted is None else _bits(program.real(node.name, wanted))
            wrong += _differing(wanted, _bits(got), agrees=wanted is not None)
        if wrong and first is None:
            first = node.name
        differing += wrong
    return Replay(engine, compared, differing, first)


def _bits(real: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(real).view(np.dtype(f"u{real.dtype.itemsize}"))


def _differing(wanted: np.ndarray | None, got: np.ndarray, agrees: bool) -> int:
    """How many of `got` are wrong. agrees: what the hash says, the only witness where `wanted` is None."""
    if wanted is not None and wanted.shape == got.shape:
        count = int(np.count_nonzero(wanted != got))
        return count if count or agrees else got.size
    return 0 if wanted is None and agrees else max(got.size, 1)

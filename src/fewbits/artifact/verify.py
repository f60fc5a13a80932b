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
from fewbits.errors import FewbitsError, VerificationError
from fewbits.export.onnx import onnx_bytes, output_name
from fewbits.program import reference
from fewbits.program.program import Program
from fewbits.run.onnx_session import OnnxSession
from fewbits.run.torch_executor import TorchExecutor

Engine = Literal["reference", "torch", "onnxruntime"]
ENGINES: tuple[Engine, ...] = ("reference", "torch", "onnxruntime")
Result = TypeVar("Result")
Codes = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Replay:
    """What one engine made of the test vectors.

    compared: codes of all nodes, and for onnxruntime float outputs, bit for bit; differing: of these. Of a
    node whose codes miss the file's hash, and are neither stored nor made by the reference here, all count.
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


def verify(source: str | Path | Artifact, engines: Sequence[Engine] = ENGINES) -> tuple[Replay, ...]:
    """Runs the file's test vectors on each engine; one Replay per engine, in that order. ONNX Runtime is left out
    where the program's profile is not one that it computes.

    Raises FileError for a file that cannot be read, and VerificationError when an engine cannot run its
    program at all. A difference is not raised: it stands in the Replay.
    """
    artifact = source if isinstance(source, Artifact) else read(source)
    program, expected = artifact.program, artifact.vectors
    names = [node.name for node in program.nodes]

    def define() -> tuple[Codes, Codes]:
        given = vectors.inputs(program)
        return given, reference.run(program, given, names)

    given, definition = _attempt(artifact, "reference", define)
    known = {name: codes for name, codes in definition.items() if hash_codes(codes) == expected.hashes[name]}
    known |= expected.outputs

    def replay(engine: Engine) -> Replay:
        match engine:
            case "reference":
                return _compare(engine, artifact, known, definition, {})
            case "torch":
                return _compare(engine, artifact, known, TorchExecutor(program).run(given, names), {})
            case "onnxruntime":
                return _compare(engine, artifact, known, *_run_onnx(program, given))

    return tuple(_attempt(artifact, engine, partial(replay, engine)) for engine in engines
                 if engine != "onnxruntime" or program.profile.engine == engine)


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
    outputs = OnnxSession(onnx_bytes(program, form="integer", every_code=True), threads=1).run(given)
    codes = {node.name: outputs[node.name] for node in program.nodes if node.name in outputs}
    plain = OnnxSession(onnx_bytes(program, form="integer"), threads=1).run(given)
    return codes, {name: plain[output_name(name)] for name in program.outputs}


def _compare(engine: Engine, artifact: Artifact, known: Codes, codes: Codes, reals: Codes) -> Replay:
    """codes: by node, some may be absent; reals: dequantized outputs, if the engine gives them."""
    program, expected = artifact.program, artifact.vectors
    compared, differing, first = 0, 0, None
    for node in program.nodes:
        wrong = 0
        if node.name in codes:
            got = codes[node.name]
            compared += got.size
            wrong += _differing(known.get(node.name), got, hash_codes(got) == expected.hashes[node.name])
        if node.name in reals:
            got = reals[node.name]
            compared += got.size
            wanted = known.get(node.name)
            wanted = None if wanted is None else program.encoding(node.name).decode(wanted).view(np.uint32)
            wrong += _differing(wanted, np.ascontiguousarray(got).view(np.uint32), agrees=wanted is not None)
        if wrong and first is None:
            first = node.name
        differing += wrong
    return Replay(engine, compared, differing, first)


def _differing(wanted: np.ndarray | None, got: np.ndarray, agrees: bool) -> int:
    """How many of `got` are wrong. agrees: what the hash says, the only witness where `wanted` is None."""
    if wanted is not None and wanted.shape == got.shape:
        count = int(np.count_nonzero(wanted != got))
        return count if count or agrees else got.size
    return 0 if wanted is None and agrees else max(got.size, 1)

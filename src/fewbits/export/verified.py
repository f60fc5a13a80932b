"""Writing ONNX files that were checked first."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewbits.engines.exactness import Exactness, Target, exactness, listed
from fewbits.engines.onnx_session import Level, OnnxSession, onnxruntime_version
from fewbits.engines.processor import this_processor
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.errors import ExportError, VerificationError
from fewbits.files import write_whole
from fewbits.options import options_checked
from fewbits.program import reference
from fewbits.program.float_calls import TOLERANCE
from fewbits.program.inputs import Batch, bind
from fewbits.program.islands import float_half, integer_half, shares
from fewbits.program.ops import Dynamic
from fewbits.program.program import Program
from fewbits.program.value import PLAIN
from fewbits.progress import track
from fewbits.writers.onnx.program import Form, onnx_bytes, output_name

_LEVELS: dict[Form, tuple[Level, ...]] = {"integer": ("off", "all"), "qdq": ("all",)}
"""Optimisation levels at which each form must equal the program."""

_LEAST_RATIO = 1e3
"""Energy of the outputs over that of their difference (30 dB), where an island moved a code by its one step."""

Arrays = Mapping[str, np.ndarray]


@options_checked
def export_onnx(program: Program, path: str | Path, verify: Iterable[Batch], *, form: Form = "integer",
                processor: Target = "any", batch_to_inputs: Callable[[Any], Any] | None = None) -> int:
    """Writes the program as ONNX, after ONNX Runtime gave the program's outputs, bit for bit, on every batch
    of `verify`: the integer form with optimisation off and on, QDQ as it runs by default.

    processor: where the file must be exact, which is decided from the program (engines/exactness.py) and not from the
    batches. `any`: in every session on x86-64; layers whose sums could saturate get uint8 weights, which cost time
    where VNNI would have helped. `vnni`: int8 weights, for processors with VNNI. `this`: what is fastest on this one.
    The file says in its metadata where it is exact.

    A program with float islands is checked by halves (program/islands.py): integers bit for bit, islands within their
    tolerance and one step at their quantizers. The whole must then give the program's outputs, unless an island did
    move a code, or numbers that become codes as they come.
    Returns the number of output codes compared. Raises ExportError, and writes nothing, when one differs, or when this
    processor would compute the file wrong; VerificationError when there was no batch, or ONNX has no form of the
    program; FileError when the file cannot be written.
    """
    written = exactness(program, processor, this_processor())
    _refuse_wrong(path, written)
    writing = _Writing(path, form, written.portable)
    model = exported_bytes(program, form, processor)
    check = _Islands(program, writing, model) if program.has_islands else _Whole(program, writing, model)
    compared = 0
    for number, batch in enumerate(track(verify, "verifying")):
        inputs = {name: x.detach().cpu().numpy() for name, x in bind(program.inputs, batch, batch_to_inputs).items()}
        compared += check.compare(inputs, number)
    if not compared:
        raise VerificationError(f"{path} was not written: there was no batch to verify it on")
    write_whole(path, model)
    return compared


@options_checked
def exported_bytes(program: Program, form: Form, processor: Target) -> bytes:
    """The file that `export_onnx` writes, unchecked."""
    written = exactness(program, processor, this_processor())
    return onnx_bytes(program, form, portable=written.portable, metadata=described(program, form, written))


def described(program: Program, form: Form, written: Exactness) -> dict[str, str]:
    """What an exported file says of itself: the profile, and where its codes are the program's."""
    at = "every optimisation level" if form == "integer" else "the default optimisation level"
    told = {"fewbits.profile": program.profile.name, "fewbits.exact_on": written.where,
            "fewbits.exact_at": f"{at} of onnxruntime"}
    if program.has_islands:
        told["fewbits.float"] = "what the recipe left in float32 may differ in its last bits between engines"
    return told


def _refuse_wrong(path: str | Path, written: Exactness) -> None:
    """Raises ExportError where this processor would not compute the file's codes."""
    here = this_processor()
    wrong = written.left.wrong_on(here)
    if wrong:
        why = ("adds products of 8-bit codes in pairs, in 16 bits that saturate (it has no VNNI)"
               if wrong[0] in written.left.pairs else "has no fused multiply-add")
        raise ExportError(f"{path} was not written: {here.name} {why}, and so computes {listed(wrong)} wrong in a file "
                          f"for processor {written.target!r}: export it for `any`, or on a machine that is one")


@dataclass(frozen=True)
class _Writing:
    """Which file is being made."""

    path: str | Path
    form: Form
    portable: frozenset[str]

    def bytes(self, part: Program) -> bytes:
        """The model of a part of the program."""
        return onnx_bytes(part, self.form, portable=self.portable)


@dataclass
class _Sessions:
    """A model at every level at which it must hold."""

    model: bytes
    form: Form

    def __post_init__(self):
        self._sessions: list[tuple[Level, OnnxSession]] = [(level, OnnxSession(self.model, level))
                                                           for level in _LEVELS[self.form]]

    def run(self, inputs: Arrays) -> Iterator[tuple[Level, dict[str, np.ndarray]]]:
        for level, session in self._sessions:
            yield level, session.run(inputs)


class _Whole:
    """All outputs, bit for bit."""

    def __init__(self, program: Program, writing: _Writing, model: bytes):
        self.program, self.path = program, writing.path
        self._executor, self._sessions = TorchExecutor(program), _Sessions(model, writing.form)

    def compare(self, inputs: Arrays, number: int) -> int:
        """Values compared. Raises VerificationError."""
        return self.equal(inputs, self._executor.run(inputs), number)

    def equal(self, inputs: Arrays, known: Arrays, number: int) -> int:
        """The same against outputs that are known."""
        compared = 0
        for level, outputs in self._sessions.run(inputs):
            for name in self.program.outputs:
                wanted = self.program.real(name, known[name])
                compared += wanted.size
                _refuse(self.path, self.program, level, name, number, wanted != outputs[output_name(name)])
        return compared


class _Islands:
    """Integers bit for bit and islands within what they may differ by, each fed what the reference gives at the cut;
    then the whole, which must be equal where no island moved a code."""

    def __init__(self, program: Program, writing: _Writing, model: bytes):
        self.program, self.path, form = program, writing.path, writing.form
        self.integers, self.floats = integer_half(program), float_half(program)
        self._exact = None
        if self.integers.nodes:
            self._exact = _Whole(self.integers, writing, writing.bytes(self.integers))
        self._near, self._model = _Sessions(writing.bytes(self.floats), form), _Sessions(model, form)
        self._becoming_codes = {name for name in self.floats.outputs if self.floats.kind(name) not in PLAIN}
        self._becoming_codes |= {node.input for node in program.nodes if isinstance(node, Dynamic)}
        self._keep = tuple(dict.fromkeys(name for half in (self.integers, self.floats) for name in
                                         (*half.inputs, *half.outputs, *(node.name for node in self.floats.nodes))
                                         if name not in program.inputs))

    def compare(self, inputs: Arrays, number: int) -> int:
        """Values compared. Raises VerificationError."""
        known = {**inputs, **reference.run(self.program, inputs, self._keep)}
        compared, moved = 0, False
        if self._exact is not None:
            compared += self._exact.equal({name: known[name] for name in self.integers.inputs}, known, number)
        for level, results in self._near.run({name: known[name] for name in self.floats.inputs}):
            for name in self.floats.outputs:
                away = self._away(name, known, results[output_name(name)])
                compared, moved = compared + away.size, moved or (name in self._becoming_codes and bool(away.any()))
                _refuse(self.path, self.program, level, name, number, away > 1)
        for level, results in self._model.run(inputs):
            for name in self.program.outputs:
                away = self._away(name, known, results[output_name(name)])
                compared += away.size
                if moved:
                    _refuse(self.path, self.program, level, name, number,
                            (away > 0) & _unlike(self.program.real(name, known[name]), results[output_name(name)]))
                else:
                    _refuse(self.path, self.program, level, name, number, away > int(self.program.is_float(name)))
        return compared

    def _away(self, name: str, known: Arrays, actual: np.ndarray) -> np.ndarray:
        """How far outputs are from the reference's: floats in tolerances, codes in steps; what is NaN and should be a
        code is infinitely far."""
        if self.program.kind(name) in PLAIN - {"float32"}:
            return np.where(known[name] == actual, 0.0, np.inf)
        if self.program.is_float(name):
            return shares(self.program, name, known, actual) / TOLERANCE
        steps = np.rint(self.program.steps_between(name, self.program.real(name, known[name]), actual))
        return np.where(np.isnan(steps), np.inf, steps)


def _unlike(wanted: np.ndarray, actual: np.ndarray) -> bool:
    """Whether two tensors are so far apart that no code an island moved explains it."""
    noise = float(np.square(wanted.astype(np.float64) - actual).sum())
    return not noise * _LEAST_RATIO <= float(np.square(wanted.astype(np.float64)).sum())


def _refuse(path: str | Path, program: Program, level: Level, name: str, number: int, differs: np.ndarray) -> None:
    differing = int(np.count_nonzero(differs))
    if differing:
        raise ExportError(
            f"{path} was not written: onnxruntime (optimisation {level}) differs from the program in "
            f"{differing} of {differs.size} values of {name!r} on batch {number}, though this processor "
            f"({this_processor()}) should compute them: report it to the makers of fewbits, with onnxruntime's version "
            f"({onnxruntime_version()})")

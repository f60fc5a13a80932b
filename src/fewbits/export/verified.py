"""Writing ONNX files that were checked first."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewbits.errors import VerificationError
from fewbits.export.onnx import Form, onnx_bytes, output_name
from fewbits.files import write_whole
from fewbits.options import options_checked
from fewbits.program import reference
from fewbits.program.float_calls import TOLERANCE
from fewbits.program.inputs import Batch, bind
from fewbits.program.islands import float_half, integer_half, shares
from fewbits.program.ops import Dynamic
from fewbits.program.program import Program
from fewbits.progress import track
from fewbits.run.onnx_session import Level, OnnxSession
from fewbits.run.torch.executor import TorchExecutor

_LEVELS: dict[Form, tuple[Level, ...]] = {"integer": ("off", "all"), "qdq": ("all",)}
"""Optimisation levels at which each form must equal the program."""

_LEAST_RATIO = 1e3
"""Energy of the outputs over that of their difference (30 dB), where an island moved a code by its one step."""

Arrays = Mapping[str, np.ndarray]


@options_checked
def export_onnx(program: Program, path: str | Path, verify: Iterable[Batch], *, form: Form = "integer",
                batch_to_inputs: Callable[[Any], Any] | None = None) -> int:
    """Writes the program as ONNX, after ONNX Runtime gave the program's outputs, bit for bit, on every batch
    of `verify`: the integer form with optimisation off and on, QDQ as it runs by default.

    A program with float islands is checked by halves (program/islands.py): integers bit for bit, islands within their
    tolerance and one step at their quantizers. The whole must then give the program's outputs, unless an island did
    move a code, or numbers that become codes as they come.
    Returns the number of output codes compared. Raises VerificationError, and writes nothing, when one
    differs or there was no batch; FileError when the file cannot be written.
    """
    model = onnx_bytes(program, form)
    check = _Islands(program, form, path, model) if program.has_islands else _Whole(program, form, path, model)
    compared = 0
    for number, batch in enumerate(track(verify, "verifying")):
        inputs = {name: x.detach().cpu().numpy() for name, x in bind(program.inputs, batch, batch_to_inputs).items()}
        compared += check.compare(inputs, number)
    if not compared:
        raise VerificationError(f"{path} was not written: there was no batch to verify it on")
    write_whole(path, model)
    return compared


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

    def __init__(self, program: Program, form: Form, path: str | Path, model: bytes):
        self.program, self.path = program, path
        self._executor, self._sessions = TorchExecutor(program), _Sessions(model, form)

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

    def __init__(self, program: Program, form: Form, path: str | Path, model: bytes):
        self.program, self.path = program, path
        self.integers, self.floats = integer_half(program), float_half(program)
        self._exact = None
        if self.integers.nodes:
            self._exact = _Whole(self.integers, form, path, onnx_bytes(self.integers, form))
        self._near, self._model = _Sessions(onnx_bytes(self.floats, form), form), _Sessions(model, form)
        self._becoming_codes = {name for name in self.floats.outputs if not self.floats.is_float(name)}
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
        raise VerificationError(
            f"{path} was not written: onnxruntime (optimisation {level}) differs from the program in "
            f"{differing} of {differs.size} values of {name!r} on batch {number}; "
            f"the program relies on {' and on '.join(program.profile.relies_on) or 'nothing special'}")

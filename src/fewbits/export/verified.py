"""Writing ONNX files that were checked first."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewbits.engines.compare import Difference, Part, parts_of, value_differences
from fewbits.engines.engine import Arrays
from fewbits.engines.exactness import Exactness, exactness, listed
from fewbits.engines.onnx_session import Level, OnnxSession, onnxruntime_version
from fewbits.engines.onnxruntime import PreparedModel
from fewbits.engines.processor import Target, this_processor
from fewbits.engines.torch.executor import TorchExecutor, walk_once
from fewbits.errors import ExportError, VerificationError
from fewbits.export.described import described
from fewbits.files import write_whole
from fewbits.options import options_checked
from fewbits.program import reference
from fewbits.program.inputs import Batch, bind, with_batch_axis
from fewbits.program.ops import Dynamic
from fewbits.program.program import Program
from fewbits.program.value import PLAIN
from fewbits.progress import track
from fewbits.writers.onnx.program import OnnxForm, onnx_bytes, onnx_pieces, weight_bytes

_LEVELS: dict[OnnxForm, tuple[Level, ...]] = {"integer": ("off", "all"), "qdq": ("all",)}
"""Optimisation levels at which each form must equal the program."""

_LARGE = 2**25
"""Bytes of weights, from which on they are in one engine at a time while a file is verified."""

_LEAST_RATIO = 1e3
"""Energy of the outputs over that of their difference (30 dB), where an island moved a code by its one step."""


@options_checked
def export_onnx(program: Program, path: str | Path, verify: Iterable[Batch], *, form: OnnxForm = "integer",
                processor: Target = "any", batch_to_inputs: Callable[[Any], Any] | None = None) -> int:
    """Writes the program as ONNX, after ONNX Runtime gave the program's outputs, bit for bit, on every batch
    of `verify`: the integer form with optimisation off and on, QDQ as it runs by default.

    processor: where the file must be exact, which is decided from the program (engines/exactness.py) and not from the
    batches. `any`: in every session on x86-64; layers whose sums could saturate get uint8 weights, which cost time
    where VNNI would have helped. `vnni`: int8 weights, for processors with VNNI. `this`: what is fastest on this one.
    The file says in its metadata where it is exact.

    A program with float islands is checked by halves (program/islands.py): integers bit for bit, islands within their
    tolerance and one step at their quantizers. The whole must then give the program's outputs, unless an island did
    move a code, or a dynamically quantized number.
    Returns the number of output codes compared. Raises ExportError, and writes nothing, when one differs, or when this
    processor would compute the file wrong; VerificationError when there was no batch, or ONNX has no form of the
    program; FileError when the file cannot be written.
    """
    written = exactness(program, processor, this_processor())
    _refuse_wrong(path, written)
    writing = _Writing(path, form, written.portable)
    compared = 0

    def check(file: Path) -> None:
        nonlocal compared
        compared = _compared(program, verify, _Check(program, writing, file), batch_to_inputs)
        if not compared:
            raise VerificationError(f"{path} was not written: there was no batch to verify it on")

    write_whole(path, _exported(program, form, written), check)
    return compared


def _compared(program: Program, verify: Iterable[Batch], check: "_Check",
              batch_to_inputs: Callable[[Any], Any] | None) -> int:
    """Values compared on all batches. Raises ExportError."""
    compared = 0
    for number, batch in enumerate(track(verify, "verifying")):
        given, _ = with_batch_axis(bind(program.inputs, batch, batch_to_inputs),
                                   {name: program.values[name].taken for name in program.inputs})
        inputs = {name: x.detach().cpu().numpy() for name, x in given.items()}
        compared += check.compare(inputs, number)
    return compared


@options_checked
def exported_bytes(program: Program, form: OnnxForm, processor: Target) -> bytes:
    """The file that `export_onnx` writes, unchecked."""
    return b"".join(_exported(program, form, exactness(program, processor, this_processor())))


def _exported(program: Program, form: OnnxForm, written: Exactness) -> Iterator[bytes]:
    return onnx_pieces(program, form, portable=written.portable, metadata=described(program, form, written))


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
    form: OnnxForm
    portable: frozenset[str]

    def bytes(self, part: Program) -> bytes:
        """The model of a part of the program."""
        return onnx_bytes(part, self.form, portable=self.portable)


class _Check:
    """A file's model, and those of the halves of its program, at every level at which they must hold."""

    def __init__(self, program: Program, writing: _Writing, file: Path):
        self.program, self.writing = program, writing
        self._large = weight_bytes(program) > _LARGE
        self._executor = None if program.has_islands or self._large else TorchExecutor(program)
        self._parts: list[tuple[Part, list[tuple[Level, Callable[[], PreparedModel]]]]] = []
        becoming, wanted = {node.input for node in program.everything if isinstance(node, Dynamic)}, []
        for part in parts_of(program):
            half, made = part.program, file if part.program is program else writing.bytes(part.program)
            self._parts.append((part, [(level, self._prepared(half, made, level)) for level in _LEVELS[writing.form]]))
            if part.extent == "islands":
                becoming |= {name for name in half.outputs if half.kind(name) not in PLAIN}
                wanted += half.written
            if part.extent != "whole":
                wanted += (*half.inputs, *half.outputs)
        self._becoming_codes = frozenset(becoming)
        self._keep = tuple(name for name in dict.fromkeys(wanted) if name not in program.inputs)

    def _prepared(self, part: Program, model: bytes | Path, level: Level) -> Callable[[], PreparedModel]:
        """What gives a model in a session: the same each time, or of a large program a new one, so that its weights are
        in one session at a time."""
        if self._large:
            return lambda: PreparedModel(part, OnnxSession(model, level))
        ready = PreparedModel(part, OnnxSession(model, level))
        return lambda: ready

    def _known(self, inputs: Arrays) -> Arrays:
        """What the program gives."""
        if self.program.has_islands:
            return reference.run(self.program, inputs, self._keep)
        if self._executor is not None:
            return self._executor.run(inputs)
        return {name: codes for name, codes in walk_once(self.program, inputs) if self.program.returns(name)}

    def compare(self, inputs: Arrays, number: int) -> int:
        """Values compared. Raises ExportError."""
        known = {**inputs, **self._known(inputs)}
        compared, moved = 0, False
        for part, models in self._parts:
            given = {name: known[name] for name in part.program.inputs}
            for level, model in models:
                results = model().run(given)
                for each in value_differences(part, known, results):
                    compared += each.compared
                    wrong = each.differing - each.signs
                    if part.extent == "islands":
                        moved |= each.value in self._becoming_codes and bool(each.near or each.largest or wrong)
                    if part.extent == "whole" and moved:
                        wrong *= _unlike(self.program.real(each.value, known[each.value]), results.numbers[each.value])
                    if wrong:
                        self._refuse(level, each, wrong, number)
        return compared

    def _refuse(self, level: Level, each: Difference, wrong: int, number: int) -> None:
        raise ExportError(
            f"{self.writing.path} was not written: onnxruntime (optimisation {level}) differs from the program in "
            f"{wrong} of {each.compared} values of {each.value!r} on batch {number}, though this processor "
            f"({this_processor()}) should compute them: report it to the makers of fewbits, with onnxruntime's version "
            f"({onnxruntime_version()})")


def _unlike(wanted: np.ndarray, actual: np.ndarray) -> bool:
    """Whether two tensors are so far apart that no code an island moved explains it."""
    noise = float(np.square(wanted.astype(np.float64) - actual).sum())
    return not noise * _LEAST_RATIO <= float(np.square(wanted.astype(np.float64)).sum())

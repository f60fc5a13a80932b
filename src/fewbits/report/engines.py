"""Whether every engine gives the Program's codes: reference, torch, and ONNX Runtime in both forms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewbits.engines.exactness import Target, portable_nodes
from fewbits.engines.onnx_session import Level, OnnxSession
from fewbits.engines.processor import this_processor
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.errors import VerificationError
from fewbits.options import options_checked
from fewbits.program import reference
from fewbits.program.float_calls import TOLERANCE
from fewbits.program.inputs import Batch
from fewbits.program.islands import float_half, integer_half, shares
from fewbits.program.program import Program
from fewbits.report.batches import BatchToInputs, arrays, bound
from fewbits.writers.onnx.program import Form, onnx_bytes, output_name

Arrays = Mapping[str, np.ndarray]
Extent = Literal["outputs", "every value", "float islands", "end to end"]
Kind = Literal["integers", "islands", "whole"]

_SESSIONS: tuple[tuple[Form, Level], ...] = (("integer", "off"), ("integer", "all"),
                                             ("qdq", "all"), ("qdq", "off"))


@dataclass(frozen=True)
class EngineAgreement:
    """One engine against the reference.

    engine: `torch` or `onnxruntime`; form: `integer` or `qdq`, level: `off` or `all` ('' for torch);
    values: the model's outputs, or every value of the graph through a debug copy that returns them all. A program with
    float islands is cut (program/islands.py), and integers and islands are each fed what the reference gives at the
    cut: `float islands` has a row of its own, and `end to end` counts what comes of it in the whole;
    exact: whether a promise is kept or broken here: equality, or in islands the tolerance of float_calls.py and one
    step at their quantizers (QDQ with optimisation off sums in float32: it will differ);
    images: that were run; compared, differing: codes and floats; largest: biggest difference, in steps, or of
    floats as a share of the largest number; near: codes one step off behind an island, which is allowed.
    """

    engine: str
    form: str
    level: str
    values: Extent
    exact: bool
    images: int
    compared: int
    differing: int
    largest: float
    near: int = 0

    @property
    def name(self) -> str:
        """The engine and how it was run, for a reader."""
        return self.engine if not self.form else f"{self.engine} {self.form}, optimisation {self.level}"

    def __str__(self) -> str:
        near = f", {self.near} codes behind islands are one step off" if self.near else ""
        return f"{self.name} at {self.values}: {self.differing} of {self.compared} codes differ{near}"


@options_checked
def agreement(program: Program, batches: Iterable[Batch], every_value: bool = False,
              reference_batches: int | None = None, threads: int = 1,
              batch_to_inputs: BatchToInputs = None, processor: Target = "this") -> tuple[EngineAgreement, ...]:
    """Codes compared engine by engine, in one pass over the batches; torch alone under a profile that no engine
    here computes.

    A float32 output of ONNX Runtime is compared bit for bit with what its code stands for: one compared
    code per element. every_value: adds rows for every value but accumulators, through a debug copy.
    reference_batches: how many batches the (slow) reference runs, None for all; behind them the torch
    executor, compared with it until then, stands in for it. processor: for which one ONNX Runtime's model is
    written, as for an export. Raises VerificationError when an engine returns another shape, DataError as `bound` does.
    """
    checks = _checks(program, every_value, threads, portable_nodes(program, processor, this_processor()))
    wanted = dict.fromkeys(name for check in checks for name in check.wanted)
    keep = tuple(name for name in wanted if name not in program.inputs)
    executor = TorchExecutor(program)
    for number, tensors in enumerate(bound(program, batches, "comparing engines", batch_to_inputs)):
        inputs = arrays(tensors)
        if reference_batches is None or number < reference_batches:
            known = inputs | reference.run(program, inputs, keep)
            for check in checks:
                check.run_torch(known)
        else:
            known = inputs | executor.run(inputs, keep)
        for check in checks:
            check.run_sessions(known)
    return tuple(tally.agreement() for check in checks for tally in check.tallies)


def _checks(program: Program, every_value: bool, threads: int, portable: frozenset[str]) -> "list[_Check]":
    if not program.has_islands:
        return [_Check(program, "integers", every_value, threads, portable)]
    halves: tuple[tuple[Program, Kind], ...] = ((integer_half(program), "integers"), (float_half(program), "islands"),
                                                (program, "whole"))
    return [_Check(half, kind, every_value, threads, portable) for half, kind in halves if half.nodes]


class _Check:
    """One program, or half of one, on every engine. wanted: the values of the reference that it needs."""

    def __init__(self, program: Program, kind: Kind, every_value: bool, threads: int, portable: frozenset[str]):
        self.program = program
        everything = tuple(node.name for node in program.nodes)
        extents: tuple[Extent, ...] = {"integers": ("outputs", "every value") if every_value else ("outputs",),
                                       "islands": ("float islands",), "whole": ("end to end",)}[kind]
        self.compared = everything if kind == "islands" or (every_value and kind == "integers") else program.outputs
        self.wanted = (*program.inputs, *self.compared)
        self._executor = TorchExecutor(program)
        self._torch = _Tally(program, "torch", "", "", extents[-1], kind != "whole", kind)
        sessions = _SESSIONS if program.profile.engine == "onnxruntime" else ()
        debug = ("every value", "float islands")
        self._sessions = [(OnnxSession(onnx_bytes(program, form, extent in debug, portable=portable), level, threads),
                           _Tally(program, "onnxruntime", form, level, extent,
                                  kind == "islands" or (kind == "integers" and (form, level) != ("qdq", "off")), kind))
                          for form, level in sessions for extent in extents]

    @property
    def tallies(self) -> "tuple[_Tally, ...]":
        return (self._torch, *(tally for _, tally in self._sessions))

    def run_torch(self, known: Arrays) -> None:
        """known: what the reference gives for this batch."""
        self._torch.images += _images(known, self.program)
        actual = self._executor.run(self._given(known), self.compared)
        for name in self.compared:
            self._torch.add(name, known, actual[name])

    def run_sessions(self, known: Arrays) -> None:
        for session, tally in self._sessions:
            tally.images += _images(known, self.program)
            results = session.run(self._given(known))
            for name in self.compared:
                if name in results:
                    tally.add(name, known, results[name])
                if name in self.program.outputs and output_name(name) in results:
                    tally.add_real(name, known, results[output_name(name)])

    def _given(self, known: Arrays) -> dict[str, np.ndarray]:
        return {name: known[name] for name in self.program.inputs}


def _images(known: Arrays, program: Program) -> int:
    return max((len(known[name]) for name in program.inputs if program.values[name].shape[:1] == (None,)), default=0)


@dataclass
class _Tally:
    """Counts of one row under way."""

    program: Program
    engine: str
    form: str
    level: str
    values: Extent
    exact: bool
    kind: Kind
    images: int = 0
    compared: int = 0
    differing: int = 0
    largest: float = 0.0
    near: int = 0

    def add(self, name: str, known: Arrays, actual: np.ndarray) -> None:
        """A value as the reference has it and as the engine gives it: codes or floats."""
        expected = known[name]
        if self.program.values[name].encoding is None and expected.dtype != np.float32:
            self._same_shape(name, expected, actual)
            self._count(expected != actual, 0.0)
            return
        if self.program.is_float(name):
            self.add_real(name, known, actual)
            return
        self._same_shape(name, expected, actual)
        steps = np.abs(expected.astype(np.int64) - actual)
        if self.kind == "islands":  # their own quantizers: one step is allowed
            self.near += int(np.count_nonzero(steps == 1))
            self._count(steps > 1, 0.0)
        else:
            self._count(steps > 0, float(steps.max(initial=0)))

    def add_real(self, name: str, known: Arrays, actual: np.ndarray) -> None:
        """float32: by their bits, or within the tolerance where an island made them."""
        expected = self.program.real(name, known[name])
        if expected.dtype != np.float32:
            return  # counted as it is
        self._same_shape(name, expected, actual)
        encoding = self.program.values[name].encoding
        if encoding is not None and self.kind == "islands":
            return  # codes of an island's quantizer, which `add` has counted
        if encoding is None and self.kind != "integers":
            share = shares(self.program, name, known, actual)
            self._count(share > TOLERANCE, float(share.max(initial=0)))
            return
        away = (self.program.steps_between(name, expected, actual) if encoding is not None
                else np.abs(expected.astype(np.float64) - actual))
        different = np.ascontiguousarray(expected).view(np.uint32) != np.ascontiguousarray(actual).view(np.uint32)
        self._count(different, float(away.max(initial=0)))

    def _same_shape(self, name: str, expected: np.ndarray, actual: np.ndarray) -> None:
        if expected.shape != actual.shape:
            raise VerificationError(f"{self.engine} {self.form} returns {name!r} of shape {actual.shape}, "
                                    f"not {expected.shape}")

    def _count(self, different: np.ndarray, largest: float) -> None:
        self.compared += different.size
        self.differing += int(np.count_nonzero(different))
        self.largest = max(self.largest, largest)

    def agreement(self) -> EngineAgreement:
        return EngineAgreement(self.engine, self.form, self.level, self.values, self.exact, self.images,
                               self.compared, self.differing, self.largest, self.near)

"""Whether every engine gives the Program's codes: reference, torch, native, and ONNX Runtime in both forms."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fewbits.engines.compare import Difference, Part, parts_of, value_differences
from fewbits.engines.engine import Arrays, Engine, Prepared, Results
from fewbits.engines.executors import Native, Torch
from fewbits.engines.onnx_session import Level
from fewbits.engines.onnxruntime import OnnxRuntime
from fewbits.engines.processor import Target
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.errors import VerificationError
from fewbits.options import options_checked
from fewbits.program import reference
from fewbits.program.inputs import Batch
from fewbits.program.program import Program
from fewbits.quant.calibrate import BatchToInputs
from fewbits.report.batches import arrays, bound
from fewbits.writers.onnx.program import OnnxForm

Extent = Literal["outputs", "every value", "float islands", "end to end"]

_SETTINGS: tuple[tuple[OnnxForm, Level], ...] = (("integer", "off"), ("integer", "all"), ("qdq", "all"), ("qdq", "off"))


@dataclass(frozen=True)
class EngineAgreement:
    """One engine against the reference.

    engine: `torch`, `native` or `onnxruntime`; form: `integer` or `qdq`, level: `off` or `all` ('' but for ONNX
    Runtime);
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
              batch_to_inputs: BatchToInputs = None, processor: Target = "this",
              ready: Prepared | None = None) -> tuple[EngineAgreement, ...]:
    """Codes compared engine by engine, in one pass over the batches; without ONNX Runtime under a profile that it does
    not compute, and without our own kernels where there are none.

    A float32 output of ONNX Runtime is compared bit for bit with what its code stands for: one compared
    code per element. every_value: adds rows for every value but accumulators, through a debug copy.
    reference_batches: how many batches the (slow) reference runs, None for all; behind them the torch
    executor, compared with it until then, stands in for it. processor: for which one ONNX Runtime's model is
    written, as for an export; ready: the program in ONNX Runtime as it runs by default, so written, where it is at
    hand. Raises VerificationError when an engine returns another shape, DataError as `bound` does.
    """
    checks = [_Check(part, every_value, threads, processor, ready if part.program is program else None)
              for part in parts_of(program)]
    wanted = dict.fromkeys(name for check in checks for name in check.wanted)
    keep = tuple(name for name in wanted if name not in program.inputs)
    executor = TorchExecutor(program)
    for number, tensors in enumerate(bound(program, batches, "comparing engines", batch_to_inputs)):
        inputs = arrays(tensors)
        if reference_batches is None or number < reference_batches:
            known = inputs | reference.run(program, inputs, keep)
            for check in checks:
                check.torch(known)
                check.native(known)
        else:
            known = inputs | executor.run(inputs, keep)
            for check in checks:
                check.native(known)
        for check in checks:
            check.onnxruntime(known)
    return tuple(row.agreement() for check in checks for row in check.rows)


class _Check:
    """One program, or half of one, on every engine. wanted: the values of the reference that it needs."""

    def __init__(self, part: Part, every_value: bool, threads: int, processor: Target, ready: Prepared | None):
        self.part, program = part, part.program
        everything = program.written
        every = part.extent == "islands" or (every_value and part.extent == "integers")
        self.compared = everything if every else program.outputs
        self.wanted = (*program.inputs, *self.compared)
        told: Extent = ("float islands" if part.extent == "islands" else "end to end" if part.extent == "whole"
                        else "every value" if every else "outputs")
        self._torch = Torch().prepare(program, self.compared)
        self.rows = [_Row(part, Torch(), told)]
        self._native: list[tuple[Prepared, _Row]] = []
        if not Native().refusal(program):  # with every value kept it runs other calls than without
            self._native = [(Native().prepare(program, self.compared), _Row(part, Native(), told))]
            if part.extent == "integers" and every:
                self._native.append((Native().prepare(program), _Row(part, Native(), "outputs")))
        self.rows += [row for _, row in self._native]
        self._models: list[tuple[Prepared, dict[bool, _Row]]] = []  # True: the row of codes, False: of plain outputs
        for form, level in _SETTINGS if program.profile.engine == "onnxruntime" else ():
            engine = OnnxRuntime(form, level, threads, processor)
            rows = {True: _Row(part, engine, told)} if every else {}
            if part.extent != "islands":
                rows = {False: _Row(part, engine, "end to end" if part.extent == "whole" else "outputs")} | rows
            self.rows += rows.values()
            # Nothing is fused with optimisation off, so that the copy which gives every value serves for both.
            copies = [rows] if level == "off" or len(rows) == 1 else [{copy: row} for copy, row in rows.items()]
            for copy in copies:
                at_hand = ready if (form, level) == ("integer", "all") and True not in copy else None
                self._models.append((at_hand or engine.prepare(program, everything if True in copy else ()), copy))

    def torch(self, known: Arrays) -> None:
        """known: what the reference gives for this batch."""
        self.rows[0].add(known, self._torch.run(self._given(known)))

    def native(self, known: Arrays) -> None:
        """Codes, and the float32 numbers of outputs as users get them."""
        for prepared, row in self._native:
            given = self._given(known)
            numbers = prepared.numbers(given) if row.values == "outputs" else {}
            row.add(known, Results(prepared.run(given).codes, numbers))

    def onnxruntime(self, known: Arrays) -> None:
        for model, rows in self._models:
            results = model.run(self._given(known))
            for with_codes, row in rows.items():
                row.add(known, results if with_codes else Results({}, results.numbers))

    def _given(self, known: Arrays) -> dict[str, np.ndarray]:
        return {name: known[name] for name in self.part.program.inputs}


@dataclass
class _Row:
    """Counts of one row under way."""

    part: Part
    engine: Engine
    values: Extent
    images: int = 0
    found: list[Difference] = field(default_factory=list)

    def add(self, known: Arrays, results: Results) -> None:
        program = self.part.program
        self.images += max((len(known[name]) for name in program.inputs
                            if program.values[name].shape[:1] == (None,)), default=0)
        for difference in value_differences(self.part, known, results):
            if difference.shape is not None:
                raise VerificationError(f"{self.engine.name} {self.engine.setting}".rstrip() + f" returns "
                                        f"{difference.value!r} of shape {difference.shape}, "
                                        f"not {known[difference.value].shape}")
            self.found.append(difference)

    def agreement(self) -> EngineAgreement:
        form, level = ((self.engine.form, self.engine.level) if isinstance(self.engine, OnnxRuntime) else ("", ""))
        promised = self.part.extent != "whole" and (self.engine.promises or self.part.extent == "islands")
        return EngineAgreement(
            self.engine.name, form, level, self.values, promised, self.images,
            sum(each.compared for each in self.found), sum(each.differing for each in self.found),
            max((each.largest for each in self.found), default=0.0), sum(each.near for each in self.found))

"""Whether every engine gives the Program's codes: reference, torch, and ONNX Runtime in both forms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewbits.errors import VerificationError
from fewbits.export.onnx import Form, onnx_bytes, output_name
from fewbits.program import reference
from fewbits.program.inputs import Batch
from fewbits.program.program import Program
from fewbits.report.batches import BatchToInputs, arrays, bound
from fewbits.run.onnx_session import Level, OnnxSession
from fewbits.run.torch_executor import TorchExecutor

Extent = Literal["outputs", "every value"]

_SESSIONS: tuple[tuple[Form, Level], ...] = (("integer", "off"), ("integer", "all"),
                                             ("qdq", "all"), ("qdq", "off"))


@dataclass(frozen=True)
class EngineAgreement:
    """One engine against the reference.

    engine: `torch` or `onnxruntime`; form: `integer` or `qdq`, level: `off` or `all` ('' for torch);
    values: the model's outputs, or every value of the graph through a debug copy that returns them all;
    exact: whether equality is promised (QDQ with optimisation off sums in float32: it will differ);
    images: that were run; compared, differing: codes; largest: biggest difference, in steps of its grid.
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

    @property
    def name(self) -> str:
        """The engine and how it was run, for a reader."""
        return self.engine if not self.form else f"{self.engine} {self.form}, optimisation {self.level}"

    def __str__(self) -> str:
        return f"{self.name} at {self.values}: {self.differing} of {self.compared} codes differ"


def agreement(program: Program, batches: Iterable[Batch], every_value: bool = False,
              reference_batches: int | None = None, threads: int = 1,
              batch_to_inputs: BatchToInputs = None) -> tuple[EngineAgreement, ...]:
    """Codes compared engine by engine, in one pass over the batches; torch alone under a profile that no engine
    here computes.

    A float32 output of ONNX Runtime is compared bit for bit with what its code stands for: one compared
    code per element. every_value: adds rows for every value but accumulators, through a debug copy.
    reference_batches: how many batches the (slow) reference runs, None for all; behind them the torch
    executor, compared with it until then, stands in for it. Raises VerificationError when an engine
    returns another shape, DataError as `bound` does.
    """
    everything = tuple(node.name for node in program.nodes)
    extents: tuple[Extent, ...] = ("outputs", "every value") if every_value else ("outputs",)
    executor = TorchExecutor(program)
    torch_tally = _Tally("torch", "", "", extents[-1], True)
    engines = [(OnnxSession(onnx_bytes(program, form, every_code=extent == "every value"), level, threads),
                _Tally("onnxruntime", form, level, extent, (form, level) != ("qdq", "off")))
               for form, level in (_SESSIONS if program.profile.engine == "onnxruntime" else ()) for extent in extents]
    for number, tensors in enumerate(bound(program, batches, "comparing engines", batch_to_inputs)):
        inputs, keep = arrays(tensors), everything if every_value else ()
        images = len(next(iter(inputs.values())))
        codes = executor.run(inputs, keep)
        if reference_batches is None or number < reference_batches:
            definition = reference.run(program, inputs, keep)
            torch_tally.images += images
            for name in definition:
                torch_tally.add_codes(name, definition[name], codes[name])
            codes = definition
        for session, tally in engines:
            tally.images += images
            _compare(program, codes, session.run(inputs), tally)
    return tuple(tally.agreement() for tally in (torch_tally, *(tally for _, tally in engines)))


def _compare(program: Program, codes: Mapping[str, np.ndarray], results: Mapping[str, np.ndarray],
             tally: "_Tally") -> None:
    for name in codes:
        if name in results:
            tally.add_codes(name, codes[name], results[name])
        if name in program.outputs:
            encoding = program.encoding(name)
            scale = encoding.block.expand(encoding.scale, codes[name].shape)
            tally.add_real(name, encoding.decode(codes[name]), results[output_name(name)], scale)


@dataclass
class _Tally:
    """Counts of one row under way."""

    engine: str
    form: str
    level: str
    values: Extent
    exact: bool
    images: int = 0
    compared: int = 0
    differing: int = 0
    largest: float = 0.0

    def add_codes(self, name: str, expected: np.ndarray, actual: np.ndarray) -> None:
        self._add(name, expected, actual, np.abs(expected.astype(np.int64) - actual))

    def add_real(self, name: str, expected: np.ndarray, actual: np.ndarray, scale: np.ndarray) -> None:
        """float32, by their bits."""
        steps = np.abs(expected.astype(np.float64) - actual) / scale
        self._add(name, np.ascontiguousarray(expected).view(np.uint32),
                  np.ascontiguousarray(actual).view(np.uint32), steps)

    def _add(self, name: str, expected: np.ndarray, actual: np.ndarray, steps: np.ndarray) -> None:
        if expected.shape != actual.shape:
            raise VerificationError(f"{self.engine} {self.form} returns {name!r} of shape {actual.shape}, "
                                    f"not {expected.shape}")
        self.compared += expected.size
        self.differing += int(np.count_nonzero(expected != actual))
        self.largest = max(self.largest, float(steps.max(initial=0)))

    def agreement(self) -> EngineAgreement:
        return EngineAgreement(self.engine, self.form, self.level, self.values, self.exact, self.images,
                               self.compared, self.differing, self.largest)

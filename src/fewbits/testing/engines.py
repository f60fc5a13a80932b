"""The checks that programs and engines must pass: nobody disputes a code."""

import numpy as np
import torch

from fewbits.engines.compare import Difference, Part, parts_of, value_differences
from fewbits.engines.engine import Engine
from fewbits.engines.registry import engine as engine_of
from fewbits.program import reference
from fewbits.program.examples import as_program
from fewbits.program.ops import RECORDS
from fewbits.program.program import Program
from fewbits.report.engines import EngineAgreement, agreement


def differences(program: Program, inputs: dict[str, np.ndarray]) -> list[EngineAgreement]:
    """Every engine that must equal the reference and does not, at outputs and at every value: torch,
    onnxruntime with integer operators at both optimisation extremes, and QDQ at the default."""
    batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
    return [row for row in agreement(program, [batch], every_value=True) if row.exact and row.differing]


def check_engine(engine: str | Engine, seeds: range = range(3)) -> int:
    """Raises AssertionError, naming the operator and the value, unless an engine gives the reference's codes on every
    operator's examples (program/ops) that it does not refuse, at every value that it gives, and every output; returns
    on how many it was tried.

    For engines that promise equal codes. Islands are held to their tolerance.
    """
    tried, checked = 0, engine_of(engine)
    for kind, record in RECORDS.items():
        for number, example in enumerate(record.examples()):
            for seed in seeds:
                program, inputs = as_program(example, seed)
                if checked.refusal(program):
                    continue
                tried += 1
                names = program.written
                known = inputs | reference.run(program, inputs, names)
                for part in parts_of(program):
                    wrong = _wrong(checked, part, known) if part.extent != "whole" else ()
                    assert not wrong, (f"engine {checked.name} differs at {kind.__name__}, example {number}, "
                                       f"seed {seed}: {wrong[0]}")
    return tried


def _wrong(engine: Engine, part: Part, known: dict[str, np.ndarray]) -> tuple[Difference, ...]:
    results = engine.prepare(part.program, part.program.written).run(
        {name: known[name] for name in part.program.inputs})
    missing = set(part.program.outputs) - set(results.codes) - set(results.numbers)
    assert not missing, f"engine {engine.name} gives no {sorted(missing)[0]!r}"
    return tuple(each for each in value_differences(part, known, results) if each.differing)

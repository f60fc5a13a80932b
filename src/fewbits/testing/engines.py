"""The one check that a program must pass: no engine disputes a code."""

import numpy as np
import torch

from fewbits.program.program import Program
from fewbits.report.engines import EngineAgreement, agreement


def differences(program: Program, inputs: dict[str, np.ndarray]) -> list[EngineAgreement]:
    """Every engine that must equal the reference and does not, at outputs and at every value: torch,
    onnxruntime with integer operators at both optimisation extremes, and QDQ at the default."""
    batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
    return [row for row in agreement(program, [batch], every_value=True) if row.exact and row.differing]

"""Repairs that change the float model itself: before any rounding, and calibrated anew behind them."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

from fewbits.errors import RepairError
from fewbits.graph.model import Model
from fewbits.program.inputs import Batch
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import Plan
from fewbits.quant.simulation import Simulation


def model_to_rescale(simulation: Simulation, repair: str) -> Model:
    """A copy of the float model. Raises RepairError when its weights or biases carry earlier repairs."""
    if simulation.is_repaired:
        raise RepairError(f"{repair} must come before repairs that change rounding or biases: it moves what they chose")
    return copy.deepcopy(simulation.model)


def recalibrated(model: Model, plan: Plan, batches: Iterable[Batch],
                 batch_to_inputs: Callable[[Any], Any] | None) -> Simulation:
    """The changed model under the same plan; the changed model is its own reference."""
    return calibrate(model, plan, batches, batch_to_inputs=batch_to_inputs)

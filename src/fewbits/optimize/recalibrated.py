"""Helpers of repairs that change the float model: applied before any rounding, with recalibration after them."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

from fewbits.errors import RepairError
from fewbits.graph.model import Model
from fewbits.numerics.encoding import Encoding
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.program.inputs import Batch
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import Plan
from fewbits.quant.simulation import Simulation


def model_to_rescale(simulation: Simulation, repair: str) -> Model:
    """A copy of the float model. Raises RepairError when its weights or biases carry earlier repairs."""
    if simulation.is_repaired:
        raise RepairError(f"{repair} must come before repairs that change rounding or biases: it moves what they chose")
    return copy.deepcopy(simulation.model)


def recalibrated(model: Model, plan: Plan, batches: Iterable[Batch], kept: Checkpoint,
                 batch_to_inputs: Callable[[Any], Any] | None) -> Simulation:
    """The changed model under the same plan; the changed model is its own reference.

    kept: where the encodings are written, or read when they were found before; then the batches are not read.
    """
    names = [site.name for site in plan.sites.values() if site.spec is not None]
    if all(f"{name} scale" in kept for name in names):
        simulation = Simulation(model, plan)
        for quantizer in simulation.quantizers():
            scale, zero_point = (kept.take(f"{quantizer.site} {part}", getattr(quantizer, part)).numpy()
                                 for part in ("scale", "zero_point"))
            quantizer.encoding = Encoding(quantizer.spec.format, scale, zero_point, quantizer.spec.block)
        simulation.set_mode("simulate")
        return simulation
    simulation = calibrate(model, plan, batches, batch_to_inputs=batch_to_inputs)
    kept.add({f"{q.site} {part}": value.clone() for q in simulation.quantizers()
                for part, value in (("scale", q.scale), ("zero_point", q.zero_point))})
    return simulation

"""Calibration: from a plan and data to a Simulation with an encoding for every tensor, or one clear refusal."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from fewbits.errors import CalibrationError, DataError
from fewbits.graph.model import Model, unfit_weight
from fewbits.numerics.finite import not_finite
from fewbits.program.inputs import Batch, bind, check
from fewbits.progress import track
from fewbits.quant.normalisation import NormalisationCheck
from fewbits.quant.one_number import OneNumberCheck
from fewbits.quant.plan import Plan
from fewbits.quant.simulation import Simulation

BatchToInputs = Callable[[Any], Any] | None


def calibrate(model: Model, plan: Plan, batches: Iterable[Batch] = (), *,
              batch_to_inputs: BatchToInputs = None,
              callback: Callable[[Simulation], object] | None = None) -> Simulation:
    """Runs every batch through the float model, watches each tensor, and fits its encoding.

    batches: what the model takes (a tensor, a tuple, a dict), or anything that `batch_to_inputs` turns into
    that; one pass is made, one batch in memory at a time; none are read where the plan takes no range from data
    (weight-only recipes). callback: in place of batches, called once with the simulation, which it runs on batches as
    it sees fit (`Simulation.compute_encodings`). Returns the Simulation in evaluation mode, simulating.
    Raises CalibrationError, naming the tensor and the batch, for NaN or Inf, no batches, a
    tensor never reached, a wrong shape or type; warns where the data does not look like what batch norm saw in training
    (NormalisationWarning) or is one number everywhere (DataWarning), a range cuts off more than it gains
    (ClippingWarning), or a few numbers far from all others stretch one (StretchWarning).
    """
    if unfit := unfit_weight(model):
        raise CalibrationError(unfit)
    simulation = Simulation(model, plan)
    if callback is not None:
        if batches != ():
            raise CalibrationError("calibration takes batches or a callback that runs them, not both")
        simulation.compute_encodings(callback)
        return simulation
    simulation.set_mode("observe")
    check, plain = NormalisationCheck(simulation), OneNumberCheck()
    with torch.no_grad():
        simulation.observe_parameters()
        for number, batch in _numbered(batches) if plan.needs_data else ():
            try:
                inputs = model_inputs(model, batch, batch_to_inputs)
                plain.see(inputs)
                if check.wants_more:
                    check.count(len(next(iter(inputs.values()))))
                    simulation.run(inputs, check)
                else:
                    simulation.run(inputs)
            except (CalibrationError, DataError) as error:
                raise CalibrationError(f"batch {number}: {error}") from error
            except IndexError as error:  # of the model's own embeddings
                raise CalibrationError(f"batch {number} numbers rows that an embedding does not have: give numbers "
                                       "from 0 to its last row") from error
    check.warn()
    plain.warn()
    simulation.fit()
    simulation.set_mode("simulate")
    return simulation


def _numbered(batches: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
    """Batches counted from 0, with a progress bar. Raises CalibrationError when there is none."""
    number = -1
    for number, batch in enumerate(track(batches, "calibrating")):
        yield number, batch
    if number < 0:
        raise CalibrationError("there are no calibration batches: give at least one")


def model_inputs(model: Model, batch: Batch,
                 batch_to_inputs: BatchToInputs = None) -> dict[str, torch.Tensor]:
    """A batch as the model's inputs by name. Raises DataError for a wrong shape or type, no values, NaN or Inf."""
    inputs, _ = model.batched(bind([item.name for item in model.graph.inputs], batch, batch_to_inputs))
    for item in model.graph.inputs:
        tensor = inputs[item.name]
        check(tensor, item.name, item.taken, item.dtype)
        if kind := not_finite(tensor):
            raise DataError(f"input {item.name!r} holds {kind}: clean the data, or leave the batch out")
    return inputs

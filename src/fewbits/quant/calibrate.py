"""Calibration: from a plan and data to a Simulation with an encoding for every tensor, or one clear refusal."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

import torch

from fewbits.errors import CalibrationError, DataError
from fewbits.graph.model import Model, unfit_weight
from fewbits.numerics.finite import not_finite
from fewbits.options import check_stage
from fewbits.processes import ALONE, Processes
from fewbits.program.inputs import Batch, bind, check
from fewbits.progress import track
from fewbits.quant.normalisation import NormalisationCheck
from fewbits.quant.one_number import OneNumberCheck
from fewbits.quant.plan import Plan
from fewbits.quant.simulation import Simulation

BatchToInputs = Callable[[Any], Any] | None


def calibrate(model: Model, plan: Plan, batches: Iterable[Batch] = (), *,
              batch_to_inputs: BatchToInputs = None, processes: Processes = ALONE,
              callback: Callable[[Simulation], object] | None = None) -> Simulation:
    """Runs every batch through the float model, watches each tensor, and fits its encoding.

    batches: what the model takes (a tensor, a tuple, a dict), or anything that `batch_to_inputs` turns into
    that; one pass is made, one batch in memory at a time; none are read where the plan takes no range from data
    (weight-only recipes). callback: in place of batches, called once with the simulation, which it runs on batches as
    it sees fit (`Simulation.compute_encodings`). processes: among several each runs its share of the batches,
    neighbours, and all find the encodings that one process would, bit for bit. Returns the Simulation in evaluation
    mode, simulating.
    Raises CalibrationError, naming the tensor and the batch, for NaN or Inf, no batches, a
    tensor never reached, a wrong shape or type; warns where the data does not look like what batch norm saw in training
    (NormalisationWarning) or is one number everywhere (DataWarning), a range cuts off more than it gains
    (ClippingWarning), or a few numbers far from all others stretch one (StretchWarning).
    """
    check_stage("model", model, Model, "fb.capture(net, example)")
    check_stage("plan", plan, Plan, "fb.plan(model, recipe)")
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
        if plan.needs_data:
            with _together(simulation, processes):
                for number, batch in _numbered(batches, processes):
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
                        raise CalibrationError(f"batch {number} numbers rows that an embedding does not have: give "
                                               "numbers from 0 to its last row") from error
    check.warn()
    plain.warn()
    simulation.fit()
    simulation.set_mode("simulate")
    return simulation


def _numbered(batches: Iterable[Batch], processes: Processes) -> Iterator[tuple[int, Batch]]:
    """Batches counted from 0, with a progress bar, those of this process. Raises CalibrationError when there is none,
    or fewer than processes."""
    mine = range(sys.maxsize)
    if processes.count > 1:
        if not isinstance(batches, Sized):
            raise CalibrationError("several processes share calibration batches that have a length: give a list or a "
                                   "loader")
        if len(batches) < processes.count:
            raise CalibrationError(f"{len(batches)} calibration batches are too few for {processes.count} processes: "
                                   "make them smaller, or start fewer")
        mine = processes.share(len(batches))
    number = -1
    for number, batch in enumerate(track(batches, "calibrating")):
        if number >= mine.stop:
            break
        if number >= mine.start:
            yield number, batch
    if number < 0:
        raise CalibrationError("there are no calibration batches: give at least one")


@contextmanager
def _together(simulation: Simulation, processes: Processes) -> Iterator[None]:
    """Around the observing of a process's batches: afterwards its observers have seen all batches in order. What one
    process refuses, all do."""
    if processes.count == 1:
        yield
        return
    refused: CalibrationError | None = None
    try:
        yield
    except CalibrationError as error:
        refused = error
    watching = {quantizer.site: quantizer for quantizer in simulation.quantizers()
                if quantizer.kind in ("input", "activation")}
    shares = processes.gathered(str(refused) if refused else {site: each.observer for site, each in watching.items()})
    for share in shares:
        if isinstance(share, str):
            raise refused if refused and str(refused) == share else CalibrationError(share)
    for site, quantizer in watching.items():
        quantizer.observer = shares[0][site]
        for later in shares[1:]:
            quantizer.observer.merge(later[site])


def model_inputs(model: Model, batch: Batch,
                 batch_to_inputs: BatchToInputs = None) -> dict[str, torch.Tensor]:
    """A batch as the model's inputs by name. Raises DataError for a wrong shape or type, no values, NaN or Inf."""
    inputs, _ = model.batched(bind([item.name for item in model.graph.inputs], batch, batch_to_inputs))
    for item in model.graph.inputs:
        tensor = inputs[item.name]
        check(tensor, item.name, item.taken, item.dtype)
        if kind := not_finite(tensor):
            raise DataError(f"input {item.name!r} holds {kind}: clean the data, or leave the batch out")
    return dict(inputs)

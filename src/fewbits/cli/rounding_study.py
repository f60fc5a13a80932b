"""`fewbits rounding-study`: how much the choice of rounding matters on a network."""

from typing import Any

import torch
from rich.console import Console

from fewbits.cli.opened import opened
from fewbits.cli.verbs.studies import RoundingStudy
from fewbits.errors import DataError, RecipeError
from fewbits.optimize.adaround import Schedule
from fewbits.optimize.rounding_study import rounding_study as study
from fewbits.quant.calibrate import calibrate
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare


def rounding_study(asked: RoundingStudy, console: Console) -> object:
    """The job of the verb."""
    job, recipe = opened(asked), asked.recipe
    if job.data.test.y is None:
        raise DataError(f"{asked.data} has no labelled test images")
    if job.plan.repairs:
        raise RecipeError(f"recipe {recipe} wants {', '.join(job.plan.repairs)}, and what is studied here is rounding "
                          "alone: give a recipe without repairs, such as w8a8")
    simulation = calibrate(job.model, job.plan, job.calibration)
    test = job.data.test.batches(asked.batch_size, job.preparation.normalize)
    batches = list(job.calibration)[:max(1, asked.images // asked.batch_size)]
    labelled = [(x, torch.zeros(len(x), dtype=torch.int64)) for x in batches]  # SQNR needs no labels

    def sqnr(on: Any) -> Any:
        def score(sim: Simulation) -> float:
            return compare(job.net, sim, on).sqnr
        return score

    rows = study(simulation, batches, sqnr(test), choose=sqnr(labelled), which=asked.layer, draws=asked.draws,
                 schedule=Schedule(iterations=asked.iterations), seed=asked.seed)
    console.print(f"{recipe}, {', '.join(asked.layer) if asked.layer else 'all layers'}: logit SQNR on test images, dB")
    for row in rows:
        console.print(f"  {row}", highlight=False)
    return rows

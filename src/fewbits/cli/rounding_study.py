"""`fewbits rounding-study`: how much the choice of rounding matters on a network."""

from itertools import islice
from typing import Any

import torch
from rich.console import Console

from fewbits.cli.opened import opened
from fewbits.cli.verbs.studies import RoundingStudy
from fewbits.errors import DataError, RecipeError
from fewbits.optimize.adaround import Schedule
from fewbits.optimize.rounding_study import picture
from fewbits.optimize.rounding_study import rounding_study as study
from fewbits.quant.calibrate import calibrate
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare, evaluate

_METRICS = {"sqnr": "logit SQNR on test images, dB", "accuracy": "accuracy on test images, %"}


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
    count = max(1, asked.images // asked.batch_size)
    batches = list(job.calibration)[:count]
    calibration = job.data.draw_calibration(asked.seed)
    if asked.metric == "accuracy" and calibration.y is None:
        raise DataError(f"{asked.data} has no labels to choose the best of the draws by accuracy: give --metric sqnr")
    labelled = ([(x, torch.zeros(len(x), dtype=torch.int64)) for x in batches] if calibration.y is None  # for SQNR
                else list(islice(calibration.batches(asked.batch_size, job.preparation.normalize), count)))

    def scored(on: Any) -> Any:
        def score(sim: Simulation) -> float:
            return compare(job.net, sim, on).sqnr if asked.metric == "sqnr" else 100 * evaluate(sim, on).mean
        return score

    rows = study(simulation, batches, scored(test), choose=scored(labelled), which=asked.layer, draws=asked.draws,
                 schedule=Schedule(iterations=asked.iterations), seed=asked.seed)
    title = f"{recipe}, {', '.join(asked.layer) if asked.layer else 'all layers'}"
    before = "" if asked.metric == "sqnr" else f" (float: {100 * evaluate(job.net, test).mean:.2f})"
    console.print(f"{title}: {_METRICS[asked.metric]}{before}")
    for row in rows:
        console.print(f"  {row}", highlight=False)
    if asked.plot is not None:
        picture(rows, f"Rounding, {title}", _METRICS[asked.metric]).save(asked.plot)
        console.print(f"written: {asked.plot}", highlight=False)
    return rows

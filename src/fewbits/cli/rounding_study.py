"""`fewbits rounding-study`: how much the choice of rounding matters on a network."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from fewbits.cli.data import BatchOption, BgrOption, DataOption, DivideOption, Given, MeanOption, StdOption
from fewbits.cli.opened import opened
from fewbits.errors import DataError, RecipeError
from fewbits.optimize.adaround import Schedule
from fewbits.optimize.rounding_study import rounding_study as study
from fewbits.quant.calibrate import calibrate
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare


def rounding_study(
    network: Annotated[str, typer.Argument(help="lenet5, resnet20, …, or package.module:factory")],
    data: DataOption,
    weights: Annotated[Path | None, typer.Option(help="A .safetensors, .npz, .pt or compressed .fewbits file")] = None,
    recipe: Annotated[str, typer.Option(help="A preset or a YAML file")] = "w4a8",
    layer: Annotated[list[str] | None, typer.Option(help="Round only this layer; may be repeated")] = None,
    draws: Annotated[int, typer.Option(min=1, help="Stochastic roundings to draw")] = 20,
    iterations: Annotated[int, typer.Option(min=1, help="Of AdaRound, a layer")] = 400,
    images: Annotated[int, typer.Option(min=2, help="Calibration images for AdaRound and for choosing")] = 512,
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    batch_size: BatchOption = 64,
    seed: Annotated[int, typer.Option(help="Of the calibration images and of everything drawn")] = 0,
) -> None:
    """Round one layer, or all, to nearest, up, down, at random and by AdaRound; print what each does to the logits."""
    console = Console()
    job = opened(network, data, weights, recipe, Given(mean, std, divide, bgr), batch_size, seed)
    if job.data.test.y is None:
        raise DataError(f"{data} has no labelled test images")
    if job.plan.repairs:
        raise RecipeError(f"recipe {recipe} wants {', '.join(job.plan.repairs)}, and what is studied here is rounding "
                          "alone: give a recipe without repairs, such as w8a8")
    simulation = calibrate(job.model, job.plan, job.calibration)
    test = job.data.test.batches(batch_size, job.preparation.normalize)
    batches = list(job.calibration)[:max(1, images // batch_size)]
    labelled = [(x, torch.zeros(len(x), dtype=torch.int64)) for x in batches]  # SQNR needs no labels

    def sqnr(on: Any) -> Any:
        def score(sim: Simulation) -> float:
            return compare(job.net, sim, on).sqnr
        return score

    rows = study(simulation, batches, sqnr(test), choose=sqnr(labelled), which=layer, draws=draws,
                 schedule=Schedule(iterations=iterations), seed=seed)
    console.print(f"{recipe}, {', '.join(layer) if layer else 'all layers'}: logit SQNR on test images, dB")
    for row in rows:
        console.print(f"  {row}", highlight=False)

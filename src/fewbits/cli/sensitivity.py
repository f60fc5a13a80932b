"""`fewbits sensitivity`: which tensors lose the accuracy, and why."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fewbits.cli.data import BatchOption, BgrOption, DataOption, DivideOption, Given, MeanOption, StdOption
from fewbits.cli.opened import opened
from fewbits.files import write_whole
from fewbits.optimize.repairs import calibrate_and_repair
from fewbits.quant.recipe import DEFAULT_RECIPE
from fewbits.report.explain import explain
from fewbits.report.page import explanation_page


def sensitivity(
    network: Annotated[str, typer.Argument(help="lenet5, resnet20, …, or package.module:factory")],
    data: DataOption,
    weights: Annotated[Path | None, typer.Option(help="A .safetensors, .npz, .pt or compressed .fewbits file")] = None,
    recipe: Annotated[str, typer.Option(help="A preset or a YAML file")] = DEFAULT_RECIPE,
    html: Annotated[Path | None, typer.Option(help="Write a page with the plots here")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything here, histograms included")] = None,
    images: Annotated[int, typer.Option(min=1, help="Calibration images to measure on")] = 128,
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    batch_size: BatchOption = 64,
    seed: Annotated[int, typer.Option(help="Which images calibrate; 0 is the fixed split")] = 0,
) -> None:
    """Measure what quantizing each tensor does to the outputs, by cause, and try a remedy on the worst."""
    console = Console()
    job = opened(network, data, weights, recipe, Given(mean, std, divide, bgr), batch_size, seed)
    simulation = calibrate_and_repair(job.model, job.plan, job.calibration)
    explanation = explain(simulation, list(islice(job.calibration, max(1, images // batch_size))))
    explanation.render(console)
    if html is not None:
        write_whole(html, explanation_page(explanation, f"{network}, {recipe}").encode())
        console.print(f"written: {html}", highlight=False)
    if json is not None:
        write_whole(json, explanation.to_json().encode())
        console.print(f"written: {json}", highlight=False)

"""`fewbits calibration-study`: how many batches calibration needs on a network."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fewbits.cli.data import BgrOption, DataOption, DivideOption, Given, MeanOption, OffsetOption, StdOption
from fewbits.cli.opened import opened
from fewbits.errors import DataError
from fewbits.report.calibration_study import COUNTS
from fewbits.report.calibration_study import calibration_study as study
from fewbits.report.text import percent


def calibration_study(
    network: Annotated[str, typer.Argument(help="lenet5, resnet20, …, or package.module:factory")],
    data: DataOption,
    weights: Annotated[Path | None, typer.Option(help="A .safetensors file, or a state dict in .pt")] = None,
    recipe: Annotated[str, typer.Option(help="A preset or a YAML file")] = "w8a8-entropy",
    profile: Annotated[str, typer.Option(help="Whose integers")] = "tensorrt",
    batches: Annotated[list[int] | None, typer.Option(min=1, help="Batches to calibrate on; may be repeated")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    label_offset: OffsetOption = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images per batch")] = 20,
    seed: Annotated[int, typer.Option(help="Which images calibrate; 0 is the fixed split")] = 0,
) -> None:
    """Calibrate on 5, 10 and 50 batches, and compare each program with float on the test images."""
    console = Console()
    job = opened(network, data, weights, recipe, Given(mean, std, divide, bgr, label_offset), batch_size, seed)
    if job.data.test.y is None:
        raise DataError(f"{data} has no labelled test images")
    test = job.data.test.batches(250, job.preparation.normalize)
    rows = study(job.model, job.plan, job.calibration, test, counts=batches or COUNTS, profile=profile,
                 float_model=job.net)
    table = Table("batches", "top-1", "change", "95 % interval", "top-5", "change", "flips", "SQNR, dB",
                  title=f"{network}, {recipe}, {profile}: {rows[0].comparison.samples} test images, "
                        f"batches of {batch_size}")
    top5 = rows[0].float_top5
    table.add_row("float", percent(rows[0].comparison.float_accuracy.mean), "", "",
                  "–" if top5 is None else percent(top5.mean), "", "", "")
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)

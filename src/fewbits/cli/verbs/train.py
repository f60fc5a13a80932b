"""`fewbits train`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.verbs.shared import (
    BatchOption,
    DataOption,
    Labelled,
    NetworkArgument,
    ProcessorOption,
    VerboseOption,
    WeightsOption,
)


@dataclass(frozen=True, kw_only=True)
class Train(Labelled):
    """Train a network in few bits, lower it to integers, verify it, and write it with a report."""

    job = "fewbits.cli.train:train"
    examples = ("fewbits train lenet5 --data mnist:DIR --float-epochs 2 --epochs 4 --recipe lsq-w4a4 --out build/lsq",)
    resumes = ("checkpoint",)

    network: NetworkArgument
    data: DataOption
    recipe: Annotated[str, typer.Option(
        help="lsq-w4a4, qat-w8a8, bnn, twn, … (docs/training.md), or a YAML file that names methods")]
    out: Annotated[Path, typer.Option(help="Folder for model.fewbits, model.onnx, report.html, summary.json")]
    epochs: Annotated[int, typer.Option(help="Passes over the training examples in few bits")] = 5
    weights: WeightsOption = None
    float_epochs: Annotated[int, typer.Option(help="Passes in float first, where there are no weights")] = 0
    rate: Annotated[float, typer.Option(min=0, help="Adam's learning rate at first; it falls along a cosine")] = 1e-3
    distil: Annotated[float, typer.Option(help="Share of the loss that follows the float network's outputs")] = 0.0
    profile: Annotated[str, typer.Option(help="onnxruntime or onnxruntime-portable")] = "onnxruntime"
    batch_size: BatchOption = 64
    seed: Annotated[int, typer.Option(help="Of initial weights, order of examples, and chance in methods")] = 0
    device: Annotated[str, typer.Option(help="cpu, or cuda where there is one")] = "cpu"
    hold_out: Annotated[int, typer.Option(
        min=0, help="The last so many training examples, a tenth at most, are scored and not trained on")] = 1000
    checkpoint: Annotated[Path | None, typer.Option(help="Written after each epoch; goes on from it")] = None
    plan: Annotated[bool, typer.Option("--plan", help="Print what becomes of every tensor first")] = False
    processor: ProcessorOption = "any"
    verbose: VerboseOption = False

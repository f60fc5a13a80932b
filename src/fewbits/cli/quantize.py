"""`fewbits quantize` and `fewbits demo`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from torch import nn

from fewbits.cli.data import (
    BatchOption,
    BgrOption,
    DataOrNone,
    DivideOption,
    Given,
    MeanOption,
    OffsetOption,
    StdOption,
    open_data,
)
from fewbits.cli.opened import network_with_weights
from fewbits.cli.processor import ProcessorOption
from fewbits.data.normalize import DIGITS
from fewbits.data.preparation import Preparation
from fewbits.data.sets import load
from fewbits.program.profile import PROFILES
from fewbits.quant.recipe import DEFAULT_RECIPE, presets
from fewbits.report.report import Report
from fewbits.tasks.digits_net import digits_net
from fewbits.tasks.registry import resolve
from fewbits.tasks.stand_in import stand_in
from fewbits.tasks.training import initialised, train
from fewbits.workflow.quantize import QuantizeJob, run

_DEMO_EPOCHS, _DEMO_SEED = 30, 0


def quantize(
    network: Annotated[str, typer.Argument(help="lenet5, resnet20, …, or package.module:factory")],
    out: Annotated[Path, typer.Option(help="Folder for model.fewbits, model.onnx, report.html, summary.json")],
    data: DataOrNone = None,
    weights: Annotated[Path | None, typer.Option(help="A .safetensors, .npz, .pt or compressed .fewbits file")] = None,
    recipe: Annotated[str, typer.Option(help=f"{', '.join(presets())}, or a YAML file")] = DEFAULT_RECIPE,
    profile: Annotated[str, typer.Option(
        help=f"{', '.join(PROFILES)}; with /sums16 or /sums24 behind it, narrower sums; -split adds them in parts",
    )] = "onnxruntime",
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    label_offset: OffsetOption = None,
    batch_size: BatchOption = 64,
    seed: Annotated[int, typer.Option(help="Which images calibrate; 0 is the fixed split")] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Print what becomes of every tensor first")] = False,
    cache: Annotated[Path | None, typer.Option(help="Keeps the ranges; read when it exists, instead of data")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Add what each tensor costs to the report")] = False,
    processor: ProcessorOption = "any",
) -> None:
    """Quantize a trained network, verify it, and write it with a report."""
    console = Console()
    task = resolve(network)
    net = network_with_weights(task, weights)
    given = Given(mean, std, divide, bgr, label_offset)
    split, preparation = (stand_in(task), task.preparation) if data is None else open_data(
        data, given, task.preparation, task.example_shape)
    job = QuantizeJob(network, net, split, preparation, recipe, profile, out, batch_size, seed, plan, cache, explain,
              made_up=data is None, processor=processor)
    show(run(job, console), out, console)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results")] = Path("build/demo"),
) -> None:
    """Train a small network on real digits and do the whole job on it: no network or data needed."""
    console = Console()
    data = load("digits")
    console.print(f"training a small residual network on {len(data.train)} handwritten digits")
    net: nn.Module = initialised(digits_net, _DEMO_SEED)
    train(net, data.train, epochs=_DEMO_EPOCHS, normalize=DIGITS, seed=_DEMO_SEED)
    job = QuantizeJob("digits_net", net, data, Preparation(DIGITS), DEFAULT_RECIPE, "onnxruntime", out)
    show(run(job, console), out, console)


def show(report: Report, out: Path, console: Console) -> None:
    """Prints a report, and where the files are."""
    report.render(console)
    onnx = "model.onnx, " if (out / "model.onnx").exists() else ""
    console.print(f"written: {out}/model.fewbits, {onnx}report.html, summary.json", highlight=False)

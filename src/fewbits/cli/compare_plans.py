"""`fewbits compare-plans`: recipes of one network beside each other."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fewbits.cli.data import (
    BatchOption,
    BgrOption,
    DataOption,
    DivideOption,
    Given,
    MeanOption,
    OffsetOption,
    StdOption,
    open_data,
)
from fewbits.cli.opened import network_with_weights
from fewbits.errors import OptionError
from fewbits.files import write_whole
from fewbits.report.plan_figures import QUANTITIES, quantity
from fewbits.tasks.registry import resolve
from fewbits.workflow.compare_plans import run_compare_plans

_NO_ENGINE = "none"


def compare_plans(
    network: Annotated[str, typer.Argument(help="lenet5, resnet20, …, or package.module:factory")],
    data: DataOption,
    recipes: Annotated[str, typer.Option(help="Presets or YAML files, joined by commas")],
    weights: Annotated[Path | None, typer.Option(help="A .safetensors, .npz, .pt or compressed .fewbits file")] = None,
    profile: Annotated[str, typer.Option(help="Whose integers: see docs/profiles.md")] = "onnxruntime",
    engine: Annotated[str, typer.Option(help="Whose latency is measured; none measures none")] = "torch",
    x: Annotated[str, typer.Option(help=f"Across the picture: {', '.join(QUANTITIES)}")] = "bytes",
    y: Annotated[str, typer.Option(help="Up the picture, one of the same")] = "sqnr",
    html: Annotated[Path | None, typer.Option(help="Write a page with the table and the picture here")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure here")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    label_offset: OffsetOption = None,
    batch_size: BatchOption = 64,
    seed: Annotated[int, typer.Option(help="Which images calibrate; 0 is the fixed split")] = 0,
) -> None:
    """Quantize a network by several recipes, and set accuracy, size, memory, work, energy and time side by side."""
    console = Console()
    for axis in (x, y):
        quantity(axis)
    wanted = [each.strip() for each in recipes.split(",") if each.strip()]
    if not wanted:
        raise OptionError("--recipes names none: give presets or YAML files, joined by commas")
    task = resolve(network)
    net = network_with_weights(task, weights).eval()
    split, preparation = open_data(data, Given(mean, std, divide, bgr, label_offset), task.preparation,
                                   task.example_shape)
    calibration = split.draw_calibration(seed).inputs(batch_size, preparation.normalize)
    test = (split.test.inputs(batch_size, preparation.normalize) if split.test.y is None
            else split.test.batches(batch_size, preparation.normalize))
    found = run_compare_plans(net, calibration, test, wanted, profile=profile,
                              engine=None if engine == _NO_ENGINE else engine, name=network)
    found.render(console)
    console.print(found.text_picture(x, y), highlight=False, markup=False)
    for path, content in ((html, lambda: found.page(x, y)), (json, found.to_json)):
        if path is not None:
            write_whole(path, content().encode())
            console.print(f"written: {path}", highlight=False)

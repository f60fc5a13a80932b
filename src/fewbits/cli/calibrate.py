"""`fewbits calibrate`: find the ranges of a network, keep them, use them again."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fewbits.cli.data import BatchOption, BgrOption, DataOption, DivideOption, Given, MeanOption, StdOption
from fewbits.cli.opened import opened
from fewbits.quant.cache import calibrate_cached, save_ranges
from fewbits.quant.recipe import DEFAULT_RECIPE
from fewbits.quant.tensorrt_table import apply_table, read_table, write_table


def calibrate(
    network: Annotated[str, typer.Argument(help="lenet5, resnet20, …, or package.module:factory")],
    data: DataOption,
    cache: Annotated[Path, typer.Option(help="The file that keeps the ranges; read when it exists")],
    weights: Annotated[Path | None, typer.Option(help="A .safetensors, .npz, .pt or compressed .fewbits file")] = None,
    recipe: Annotated[str, typer.Option(help="A preset or a YAML file")] = DEFAULT_RECIPE,
    tensorrt: Annotated[Path | None, typer.Option(help="Also write TensorRT's calibration table here")] = None,
    from_tensorrt: Annotated[Path | None, typer.Option(
        help="Take the ranges of inputs and activations from this TensorRT calibration table")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    batch_size: BatchOption = 64,
    seed: Annotated[int, typer.Option(help="Which images calibrate; 0 is the fixed split")] = 0,
) -> None:
    """Find the range of every tensor, or read it from a cache of the same model and plan."""
    console = Console()
    scales = None if from_tensorrt is None else read_table(from_tensorrt)
    job = opened(network, data, weights, recipe, Given(mean, std, divide, bgr), batch_size, seed)
    known = cache.exists()
    data_digest = job.calibration.digest()
    simulation = calibrate_cached(job.model, job.plan, job.calibration, cache, data=data_digest)
    if scales is not None:
        simulation, known = apply_table(simulation, scales), False
        save_ranges(simulation, cache, data=data_digest)
    table = Table("tensor", "encoding", "rule")
    for quantizer in simulation.quantizers():
        table.add_row(quantizer.site, str(quantizer.encoding), quantizer.spec.range)
    console.print(table)
    console.print(f"read from {cache}" if known else f"written: {cache}", highlight=False)
    if job.plan.repairs:
        console.print(f"{', '.join(job.plan.repairs)}: made by `fewbits quantize`, which may read these ranges")
    if tensorrt is not None:
        write_table(simulation, tensorrt)
        console.print(f"written: {tensorrt}", highlight=False)

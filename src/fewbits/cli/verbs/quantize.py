"""`fewbits quantize` and `fewbits demo`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.verb import Verb
from fewbits.cli.verbs.shared import (
    BatchOption,
    CalibratingSeed,
    EngineOption,
    Labelled,
    NetworkArgument,
    ProcessorOption,
    ProfileOption,
    VerboseOption,
    WeightsOption,
)
from fewbits.quant.presets import DEFAULT_RECIPE


@dataclass(frozen=True, kw_only=True)
class Quantize(Labelled):
    """Quantize a trained network, verify it, and write it with a report."""

    job = "fewbits.cli.quantize:quantize"
    examples = ("fewbits quantize lenet5 --weights lenet5.pt --data mnist:DIR --out build/lenet",
                "fewbits quantize lenet5 --weights lenet5.pt --data mnist:DIR --repair adaround --out out",
                "fewbits quantize mynet.py:MyNet --weights net.pt --data npz:data.npz --mean 0.5 --std 0.25 --out out")
    resumes = ("cache",)

    network: NetworkArgument
    out: Annotated[Path, typer.Option(help="Folder for model.fewbits, model.onnx, report.html, summary.json")]
    data: Annotated[str | None, typer.Option(
        "--data", help="digits | mnist:DIR | cifar10:DIR | images:DIR | npz:FILE; not needed for weights alone (w8)",
    )] = None
    weights: WeightsOption = None
    recipe: Annotated[str, typer.Option(
        help="w8a8, w4a8, w8, w4-g128, dynamic-w8a8, … (docs/recipes.md), or a YAML file")] = DEFAULT_RECIPE
    repair: Annotated[list[str] | None, typer.Option(
        help="equalization, adaround, … made besides the recipe's repairs (docs/recipes.md); may be repeated")] = None
    profile: ProfileOption = "onnxruntime"
    batch_size: BatchOption = 64
    seed: CalibratingSeed = 0
    plan: Annotated[bool, typer.Option("--plan", help="Print what becomes of every tensor first")] = False
    cache: Annotated[Path | None, typer.Option(
        help="Keeps the ranges; read when it exists, instead of data")] = None
    explain: Annotated[bool, typer.Option("--explain", help="Add what each tensor costs to the report")] = False
    processor: ProcessorOption = "any"
    engine: EngineOption = "fastest"
    verbose: VerboseOption = False


@dataclass(frozen=True, kw_only=True)
class Demo(Verb):
    """Train a small network on real digits and do the whole job on it: no network or data needed."""

    job = "fewbits.cli.quantize:demo"
    examples = ("fewbits demo --out build/demo",)

    out: Annotated[Path, typer.Option(help="Folder for the results")] = Path("build/demo")
    verbose: VerboseOption = False

"""Arguments and options that several verbs have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fewbits.cli.verb import Verb
from fewbits.engines.processor import Target
from fewbits.errors import FileError

NetworkArgument = Annotated[str, typer.Argument(
    help="lenet5, resnet20, …, mynet.py:MyNet, package.module:factory, or a .pt2 file")]
FileArgument = Annotated[Path, typer.Argument(help="A .fewbits file")]
DataOption = Annotated[str, typer.Option("--data", help="digits | mnist:DIR | cifar10:DIR | images:DIR | npz:FILE")]
WeightsOption = Annotated[Path | None, typer.Option(help="A .safetensors, .npz, .pt or compressed .fewbits file")]
RecipeOption = Annotated[str, typer.Option(help="A preset or a YAML file")]
ProfileOption = Annotated[str, typer.Option(
    help="Whose integers: onnxruntime, litert, … (docs/profiles.md); /sums16 or /sums24 behind it: narrower sums; "
         "-split adds them in parts")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images per batch")]
CalibratingSeed = Annotated[int, typer.Option(help="Which images calibrate; 0 is the fixed split")]
ProcessorOption = Annotated[Target, typer.Option(
    "--processor", help="Where model.onnx must be exact: any x86-64; those with vnni, where it is faster; this one")]
ENGINE_NAMES = "fastest, native, torch, reference, onnxruntime, openvino, or one that a package offers"
EngineOption = Annotated[str, typer.Option("--engine", help=f"Runs the integers: {ENGINE_NAMES}")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Print every table of the report")]


def picture_option(told: str) -> Any:
    """An option that names an SVG file; another name is refused before anything runs."""
    return typer.Option(help=told, callback=_svg)


def _svg(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() != ".svg":
        raise FileError(f"{path} must end in .svg: pictures are SVG")
    return path


@dataclass(frozen=True, kw_only=True)
class Prepared(Verb):
    """Verbs that read data: how bytes become what the network takes."""

    mean: Annotated[str | None, typer.Option(help="Mean per channel, after --divide: 0.485,0.456,0.406")] = None
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel: 0.229,0.224,0.225")] = None
    divide: Annotated[float | None, typer.Option(help="What bytes are divided by before mean and std; 255")] = None
    bgr: Annotated[bool | None, typer.Option("--bgr/--rgb", help="Order of the colours the network takes")] = None


@dataclass(frozen=True, kw_only=True)
class Labelled(Prepared):
    """Those that read labels, too."""

    label_offset: Annotated[int | None, typer.Option(
        "--label-offset", help="Added to the labels: 1 where the network's class 0 is the background")] = None

"""Verbs that look at how a network is quantized and write no model: `calibrate`, `sensitivity` and the studies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewbits.cli.verbs.shared import (
    BatchOption,
    CalibratingSeed,
    DataOption,
    Labelled,
    NetworkArgument,
    Prepared,
    RecipeOption,
    WeightsOption,
    picture_option,
)
from fewbits.quant.presets import DEFAULT_RECIPE


@dataclass(frozen=True, kw_only=True)
class Calibrate(Prepared):
    """Find the range of every tensor, or read it from a cache of the same model and plan."""

    job = "fewbits.cli.calibrate:calibrate"
    examples = ("fewbits calibrate lenet5 --weights lenet5.pt --data mnist:DIR --cache ranges.json",)
    resumes = ("cache",)

    network: NetworkArgument
    data: DataOption
    cache: Annotated[Path, typer.Option(help="The file that keeps the ranges; read when it exists")]
    weights: WeightsOption = None
    recipe: RecipeOption = DEFAULT_RECIPE
    plot: Annotated[Path | None, picture_option(
        "Draw the KL divergence of every threshold, of tensors whose range rule is kl, to this SVG file")] = None
    tensorrt: Annotated[Path | None, typer.Option(help="Also write TensorRT's calibration table here")] = None
    from_tensorrt: Annotated[Path | None, typer.Option(
        help="Take the ranges of inputs and activations from this TensorRT calibration table")] = None
    batch_size: BatchOption = 64
    seed: CalibratingSeed = 0


@dataclass(frozen=True, kw_only=True)
class Sensitivity(Prepared):
    """Measure what quantizing each tensor does to the outputs, by cause, and try a remedy on the worst."""

    job = "fewbits.cli.sensitivity:sensitivity"
    examples = ("fewbits sensitivity lenet5 --weights lenet5.pt --data mnist:DIR --recipe w4a8 --html why.html",)

    network: NetworkArgument
    data: DataOption
    weights: WeightsOption = None
    recipe: RecipeOption = DEFAULT_RECIPE
    html: Annotated[Path | None, typer.Option(help="Write a page with the plots here")] = None
    plot: Annotated[Path | None, picture_option(
        "Draw every tensor's histogram, linear and by powers of two, with its range, to this SVG file")] = None
    images: Annotated[int, typer.Option(min=1, help="Calibration images to measure on")] = 128
    batch_size: BatchOption = 64
    seed: CalibratingSeed = 0


@dataclass(frozen=True, kw_only=True)
class RoundingStudy(Prepared):
    """Round one layer, or all, to nearest, up, down, at random and by AdaRound; print what each does to the logits, or
    to the accuracy."""

    job = "fewbits.cli.rounding_study:rounding_study"
    examples = ("fewbits rounding-study lenet5 --weights lenet5.pt --data mnist:DIR --recipe w4a8 --layer 3",
                "fewbits rounding-study lenet5 --weights lenet5.pt --data mnist:DIR --metric accuracy --plot study.svg")

    network: NetworkArgument
    data: DataOption
    weights: WeightsOption = None
    recipe: RecipeOption = "w4a8"
    layer: Annotated[list[str] | None, typer.Option(help="Round only this layer; may be repeated")] = None
    metric: Annotated[Literal["sqnr", "accuracy"], typer.Option(
        help="Signal to noise of the logits in dB, or accuracy in %, of the test images")] = "sqnr"
    plot: Annotated[Path | None, picture_option("Draw the table to this SVG file")] = None
    draws: Annotated[int, typer.Option(min=1, help="Stochastic roundings to draw")] = 20
    iterations: Annotated[int, typer.Option(min=1, help="Of AdaRound, a layer")] = 400
    images: Annotated[int, typer.Option(min=2, help="Calibration images for AdaRound and for choosing")] = 512
    batch_size: BatchOption = 64
    seed: Annotated[int, typer.Option(help="Of the calibration images and of everything drawn")] = 0


@dataclass(frozen=True, kw_only=True)
class CalibrationStudy(Labelled):
    """Calibrate on 5, 10 and 50 batches, and compare each program with float on the test images."""

    job = "fewbits.cli.calibration_study:calibration_study"
    examples = ("fewbits calibration-study lenet5 --weights lenet5.pt --data mnist:DIR --batches 2 --batches 8",)

    network: NetworkArgument
    data: DataOption
    weights: WeightsOption = None
    recipe: RecipeOption = "w8a8-entropy"
    profile: Annotated[str, typer.Option(help="Whose integers")] = "tensorrt"
    plot: Annotated[Path | None, picture_option("Draw accuracy against batches to this SVG file")] = None
    batches: Annotated[list[int] | None, typer.Option(min=1, help="Batches to calibrate on; may be repeated")] = None
    batch_size: BatchOption = 20
    seed: CalibratingSeed = 0

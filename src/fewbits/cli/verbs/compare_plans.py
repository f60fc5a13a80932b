"""`fewbits compare-plans`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.verbs.shared import (
    BatchOption,
    CalibratingSeed,
    DataOption,
    Labelled,
    NetworkArgument,
    WeightsOption,
    picture_option,
)


@dataclass(frozen=True, kw_only=True)
class ComparePlans(Labelled):
    """Quantize a network by several recipes, and set accuracy, size, memory, work, energy and time side by side."""

    job = "fewbits.cli.compare_plans:compare_plans"
    examples = ("fewbits compare-plans lenet5 --weights lenet5.pt --data mnist:DIR --recipes w8a8,w4a8 --html p.html",)

    network: NetworkArgument
    data: DataOption
    recipes: Annotated[str, typer.Option(help="Presets or YAML files, joined by commas")]
    weights: WeightsOption = None
    profile: Annotated[str, typer.Option(help="Whose integers: see docs/profiles.md")] = "onnxruntime"
    engine: Annotated[str, typer.Option(help="Whose latency is measured; none measures none")] = "fastest"
    x: Annotated[str, typer.Option(help="Across the picture: bytes, sqnr, … (docs/search.md)")] = "bytes"
    y: Annotated[str, typer.Option(help="Up the picture, one of the same")] = "sqnr"
    html: Annotated[Path | None, typer.Option(help="Write a page with the table and the picture here")] = None
    plot: Annotated[Path | None, picture_option("Write the picture alone to this SVG file")] = None
    batch_size: BatchOption = 64
    seed: CalibratingSeed = 0

"""Verbs on a saved file: `evaluate`, `inspect`, `verify`, `export` and `encodings`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewbits.cli.verb import Verb
from fewbits.cli.verbs.shared import (
    ENGINE_NAMES,
    BatchOption,
    DataOption,
    EngineOption,
    FileArgument,
    Labelled,
    Prepared,
    ProcessorOption,
)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Labelled):
    """Print a saved model's accuracy on the test images, with its 95 % interval."""

    job = "fewbits.cli.saved:evaluate"
    examples = ("fewbits evaluate build/lenet/model.fewbits --data mnist:DIR",)

    file: FileArgument
    data: DataOption
    batch_size: BatchOption = 64
    engine: EngineOption = "fastest"


@dataclass(frozen=True, kw_only=True)
class Inspect(Verb):
    """Print a saved model's integer graph, its accumulators, and where each byte of the file goes; or of an exported
    ONNX file, on which processors its codes are the program's."""

    job = "fewbits.cli.saved:inspect"
    examples = ("fewbits inspect build/lenet/model.fewbits", "fewbits inspect build/lenet/model.onnx")

    file: FileArgument


@dataclass(frozen=True, kw_only=True)
class Verify(Verb):
    """Replay the test vectors a saved model carries, on every engine here; exit code 2 when one differs."""

    job = "fewbits.cli.saved:verify"
    examples = ("fewbits verify build/lenet/model.fewbits", "fewbits verify build/lenet/model.fewbits --engine native")

    file: FileArgument
    engine: Annotated[list[str] | None, typer.Option(help=f"Only this one, or several: {ENGINE_NAMES}")] = None


@dataclass(frozen=True, kw_only=True)
class Export(Prepared):
    """Write a saved model as ONNX, after checking that ONNX Runtime gives its codes."""

    job = "fewbits.cli.saved:export"
    examples = ("fewbits export build/lenet/model.fewbits --form qdq --out net.onnx",)

    file: FileArgument
    out: Annotated[Path, typer.Option(help="The ONNX file to write")]
    form: Annotated[Literal["integer", "qdq"], typer.Option(
        help="integer operators, or a float graph between quantizers")] = "integer"
    data: Annotated[str | None, typer.Option(help="Verify on these calibration images, not on test vectors")] = None
    batch_size: BatchOption = 64
    processor: ProcessorOption = "any"


@dataclass(frozen=True, kw_only=True)
class Encodings(Verb):
    """Print minimum, maximum, scale and offset of every tensor of a saved model, or of an AIMET encodings file."""

    job = "fewbits.cli.encodings:encodings"
    examples = ("fewbits encodings build/lenet/model.fewbits",)

    file: Annotated[Path, typer.Argument(help="A .fewbits file, or an encodings JSON of AIMET")]

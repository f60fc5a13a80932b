"""`fewbits evaluate`, `inspect`, `verify` and `export`: what one does with a saved file."""

from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console
from rich.table import Table

from fewbits.api import QuantizedModel
from fewbits.artifact import vectors
from fewbits.artifact.file import read, sizes
from fewbits.artifact.verify import verify as replay
from fewbits.artifact.weights import holds_weights
from fewbits.cli.compress import show
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
from fewbits.cli.processor import ProcessorOption
from fewbits.engines.exactness import Target, exactness
from fewbits.engines.onnx_session import onnxruntime_version
from fewbits.engines.processor import this_processor
from fewbits.errors import VerificationError
from fewbits.export.verified import export_onnx
from fewbits.program.ops import accumulator_bound
from fewbits.program.program import Program
from fewbits.report.accuracy import evaluate as measure

_TARGETS: tuple[Target, ...] = ("any", "vnni")

FileArgument = Annotated[Path, typer.Argument(help="A .fewbits file")]


def evaluate(
    file: FileArgument,
    data: DataOption,
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    label_offset: OffsetOption = None,
    batch_size: BatchOption = 64,
) -> None:
    """Print a saved model's accuracy on the test images, with its 95 % interval."""
    saved = read(file)
    given = Given(mean, std, divide, bgr, label_offset)
    split, preparation = open_data(data, given, saved.preparation, _example_shape(saved.program))
    accuracy = measure(QuantizedModel(saved.program), split.test.batches(batch_size, preparation.normalize))
    Console().print(f"top-1 {accuracy}", highlight=False)


def inspect(file: FileArgument) -> None:
    """Print a saved model's integer graph, its accumulators, and where each byte of the file goes."""
    console = Console()
    if holds_weights(file):
        show(file, console)
        return
    artifact = read(file)
    program = artifact.program
    console.print(str(program), highlight=False, markup=False)
    console.print(f"data: {artifact.preparation}", highlight=False, markup=False)
    for line in _processors(program):
        console.print(line, highlight=False, markup=False)
    sums = Table("layer", "sums lie in", "bits needed", title="accumulators, proved from weights and code ranges")
    for node in program.dot_products:
        bound = accumulator_bound(program, node)
        sums.add_row(node.name, f"{bound.low} … {bound.high}",
                     f"{bound.bits} of {program.profile.sum_bits}")
    console.print(sums)
    items = sizes(file)
    table = Table("layer", "part", "bytes", title=f"{file}: {file.stat().st_size} bytes")
    for item in items:
        table.add_row(item.layer or "(file)", item.part, str(item.bytes))
    table.add_row("", "sum", str(sum(item.bytes for item in items)), end_section=True)
    console.print(table)


def _processors(program: Program) -> list[str]:
    """On which processors ONNX Runtime computes the program, as it is exported for each."""
    if program.profile.engine != "onnxruntime":
        return [f"onnxruntime: does not compute profile {program.profile.name}"]
    found = {target: exactness(program, target, this_processor()) for target in _TARGETS}
    if found["any"].where == found["vnni"].where:
        return [f"onnxruntime: exported, {found['any']}"]
    return [f"onnxruntime: exported with --processor {target}, {told}" for target, told in found.items()]


def verify(file: FileArgument) -> None:
    """Replay the test vectors a saved model carries, on every engine here; exit code 2 when one differs."""
    console = Console()
    replays = replay(file)
    for item in replays:
        console.print(str(item), highlight=False, markup=False)
    console.print(f"on {this_processor()}", highlight=False, markup=False)
    wrong = [item for item in replays if item.differing]
    if wrong:
        raise VerificationError(f"{file}: {', '.join(item.engine for item in wrong)} does not compute this program on "
                                f"{this_processor()}, though it should: report it to the makers of fewbits, with the "
                                f"version of onnxruntime ({onnxruntime_version()})")


def export(
    file: FileArgument,
    out: Annotated[Path, typer.Option(help="The ONNX file to write")],
    form: Annotated[Literal["integer", "qdq"], typer.Option(
        help="integer operators, or a float graph between quantizers")] = "integer",
    data: Annotated[str | None, typer.Option(help="Verify on these calibration images, not on test vectors")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    batch_size: BatchOption = 64,
    processor: ProcessorOption = "any",
) -> None:
    """Write a saved model as ONNX, after checking that ONNX Runtime gives its codes."""
    saved = read(file)
    program = saved.program
    if data is None:
        given = vectors.inputs(program)
        batches = [{name: torch.from_numpy(array) for name, array in given.items()}]
        what = "the file's test vectors"
    else:
        split, preparation = open_data(data, Given(mean, std, divide, bgr), saved.preparation, _example_shape(program))
        batches = split.calibration.inputs(batch_size, preparation.normalize)
        what = f"{len(split.calibration)} images"
    compared = export_onnx(program, out, batches, form=form, processor=processor)
    Console().print(f"{out}: {compared} outputs compared on {what}, 0 differ", highlight=False)
    Console().print(str(exactness(program, processor, this_processor())), highlight=False, markup=False)


def _example_shape(program: Program) -> tuple[int | None, ...]:
    """Of one example of the first input."""
    return program.values[program.inputs[0]].shape[1:]

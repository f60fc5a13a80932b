"""`fewbits evaluate`, `inspect`, `verify` and `export`: what one does with a saved file."""

import torch
from rich.console import Console
from rich.table import Table

from fewbits.api import QuantizedModel
from fewbits.artifact import vectors
from fewbits.artifact.file import read, sizes
from fewbits.artifact.verify import replayed
from fewbits.artifact.verify import verify as replay
from fewbits.artifact.weights import holds_weights
from fewbits.cli.compress import show
from fewbits.cli.data import open_data
from fewbits.cli.verb import Failed
from fewbits.cli.verbs.saved import Evaluate, Export, Inspect, Verify
from fewbits.engines.exactness import exactness
from fewbits.engines.onnx_session import onnxruntime_version
from fewbits.engines.processor import Target, this_processor
from fewbits.engines.registry import engine as engine_of
from fewbits.errors import UnsupportedError, VerificationError
from fewbits.export.described import description
from fewbits.export.verified import export_onnx
from fewbits.program.ops import accumulator_bound
from fewbits.program.program import Program
from fewbits.report.accuracy import evaluate as measure

_TARGETS: tuple[Target, ...] = ("any", "vnni")


def evaluate(asked: Evaluate, console: Console) -> object:
    """The job of the verb."""
    chosen, saved = engine_of(asked.engine), read(asked.file)
    model = QuantizedModel(saved.program, chosen)
    split, preparation = open_data(asked.data, asked, saved.preparation, _example_shape(saved.program))
    accuracy = measure(model, split.test.batches(asked.batch_size, preparation.normalize))
    console.print(f"top-1 {accuracy}", highlight=False)
    console.print(f"engine {model.engine_told}", highlight=False, markup=False, soft_wrap=True)
    return {"top1": accuracy.mean, "samples": accuracy.samples, "interval": accuracy.interval,
            "engine": model.engine_told}


def inspect(asked: Inspect, console: Console) -> object:
    """The job of the verb."""
    file = asked.file
    if file.suffix == ".onnx":
        told = description(file)
        for name, value in told.items():
            console.print(f"{name.replace('_', ' ')}: {value}", highlight=False, markup=False)
        return {"file": file, "bytes": file.stat().st_size, **told}
    if holds_weights(file):
        return show(file, console)
    artifact = read(file)
    program = artifact.program
    console.print(str(program), highlight=False, markup=False)
    console.print(f"data: {artifact.preparation}", highlight=False, markup=False)
    for line in _processors(program):
        console.print(line, highlight=False, markup=False)
    bounds = {node.name: accumulator_bound(program, node) for node in program.dot_products}
    sums = Table("layer", "sums lie in", "bits needed", title="accumulators, proved from weights and code ranges")
    for name, bound in bounds.items():
        sums.add_row(name, f"{bound.low} … {bound.high}", f"{bound.bits} of {program.profile.sum_bits}")
    console.print(sums)
    items = sizes(file)
    table = Table("layer", "part", "bytes", title=f"{file}: {file.stat().st_size} bytes")
    for item in items:
        table.add_row(item.layer or "(file)", item.part, str(item.bytes))
    table.add_row("", "sum", str(sum(item.bytes for item in items)), end_section=True)
    console.print(table)
    return {"file": file, "bytes": file.stat().st_size, "profile": program.profile.name, "program": str(program),
            "data": str(artifact.preparation), "processors": _processors(program), "items": items,
            "accumulators": [{"layer": name, "low": bound.low, "high": bound.high, "bits": bound.bits,
                              "bits_there": program.profile.sum_bits} for name, bound in bounds.items()]}


def _processors(program: Program) -> list[str]:
    """On which processors ONNX Runtime computes the program, as it is exported for each."""
    if program.profile.engine != "onnxruntime":
        return [f"onnxruntime: does not compute profile {program.profile.name}"]
    found = {target: exactness(program, target, this_processor()) for target in _TARGETS}
    if found["any"].where == found["vnni"].where:
        return [f"onnxruntime: exported, {found['any']}"]
    return [f"onnxruntime: exported with --processor {target}, {told}" for target, told in found.items()]


def verify(asked: Verify, console: Console) -> object:
    """The job of the verb."""
    file, named = asked.file, asked.engine
    engines = replayed() if named is None else tuple(map(engine_of, named))
    artifact = read(file)
    for each in engines if named is not None else ():
        if told := each.refusal(artifact.program):
            raise UnsupportedError(f"engine {each.name} does not run this program: {told}")
    replays = replay(artifact, engines)
    for item in replays:
        console.print(str(item), highlight=False, markup=False)
    console.print(f"on {this_processor()}", highlight=False, markup=False)
    promise = {each.name for each in engines if each.promises}
    wrong = [item for item in replays if item.differing and item.engine in promise]
    if wrong:
        return Failed(VerificationError(
            f"{file}: {', '.join(item.engine for item in wrong)} does not compute this program on {this_processor()}, "
            f"though it should: report it to the makers of fewbits, with the version of onnxruntime "
            f"({onnxruntime_version()})"), replays)
    return replays


def export(asked: Export, console: Console) -> object:
    """The job of the verb."""
    saved, out = read(asked.file), asked.out
    program = saved.program
    if asked.data is None:
        given = vectors.inputs(program)
        batches = [{name: torch.from_numpy(array) for name, array in given.items()}]
        what = "the file's test vectors"
    else:
        split, preparation = open_data(asked.data, asked, saved.preparation, _example_shape(program))
        batches = split.calibration.inputs(asked.batch_size, preparation.normalize)
        what = f"{len(split.calibration)} images"
    compared = export_onnx(program, out, batches, form=asked.form, processor=asked.processor)
    exact = exactness(program, asked.processor, this_processor())
    console.print(f"{out}: {compared} outputs compared on {what}, 0 differ", highlight=False)
    console.print(str(exact), highlight=False, markup=False)
    return {"out": out, "compared": compared, "differing": 0, "on": what, "exactness": exact}


def _example_shape(program: Program) -> tuple[int | None, ...]:
    """Of one example of the first input."""
    return program.values[program.inputs[0]].shape[1:]

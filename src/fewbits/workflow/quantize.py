"""The main job as one run: quantize, verify, write what was verified, report."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor, nn

from fewbits.artifact.file import sizes
from fewbits.artifact.save import save_verified
from fewbits.capture.capture import Example, capture
from fewbits.data.preparation import Preparation
from fewbits.data.split import DataSet, Inputs
from fewbits.engines.engine import Engine
from fewbits.engines.processor import Target
from fewbits.errors import DataError, ExportError, FileError
from fewbits.export.verified import export_onnx
from fewbits.files import write_whole
from fewbits.fold.fold import fold
from fewbits.graph.model import Model
from fewbits.lower.lower import lower
from fewbits.optimize.outcome import sqnr_of_outputs
from fewbits.optimize.repairs import repair
from fewbits.options import options_checked
from fewbits.processes import ALONE, Processes
from fewbits.program.profile import profile as profile_of
from fewbits.program.program import Program
from fewbits.progress import doing
from fewbits.quant.cache import calibrate_cached
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import Plan
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.recipe import recipe as recipe_of
from fewbits.quant.simulation import Simulation
from fewbits.report.advice import advice, explained, is_far
from fewbits.report.explain import explain
from fewbits.report.report import Report, build
from fewbits.train.untrained import check_untrained, untrained

# The report runs every engine at every value on so many images; outputs are verified on all of calibration.
_REPORTED_IMAGES = 256


@options_checked
@dataclass(frozen=True)
class QuantizeJob:
    """What to quantize, how, and where to put it. seed: which images calibrate (0: the fixed split); cache: a file that
    keeps the ranges, read where it exists; explain: whether the report says what each tensor costs; made_up: whether
    nobody gave data, and `data` only has the right shape; processor: where the ONNX file must be exact; engine: runs
    the integers for the accuracy; repairs: made besides those of the recipe, by the names that recipes give them."""

    name: str
    net: nn.Module
    data: DataSet
    preparation: Preparation
    recipe: str
    profile: str
    out: Path
    batch_size: int = 64
    seed: int = 0
    show_plan: bool = False
    cache: Path | None = None
    explain: bool = False
    made_up: bool = False
    processor: Target = "any"
    engine: str | Engine = "fastest"
    repairs: tuple[str, ...] = ()


def run(job: QuantizeJob, console: Console) -> Report:
    """Writes model.fewbits, report.html, summary.json and model.onnx into `job.out`; returns the report.

    model.onnx comes last, once ONNX Runtime gave the program's outputs on every calibration image. Raises ExportError
    when it did not; the rest is then written all the same. A profile that ONNX Runtime does not compute gives none.
    """
    simulation = calibrated(job, console)
    report = finish(job, simulation, console)
    _advise(job, simulation, report, console)
    return report


@options_checked
def calibrated(job: QuantizeJob, console: Console, norms: Literal["fold", "keep"] = "fold",
               processes: Processes = ALONE) -> Simulation:
    """The simulation of the network, calibrated and repaired. norms: `keep` leaves batch norm live, for training, which
    takes no recipe with repairs; processes: those that share the calibration."""
    batches = calibration(job)
    wanted = recipe_of(job.recipe, job.repairs)
    model, resolved = planned(job.net.eval(), first_two(batches), wanted, norms)
    if job.made_up and resolved.needs_data:
        raise DataError(f"recipe {job.recipe} takes ranges from data: give --data, or a recipe of weights alone, such "
                        "as w8")
    console.print(str(resolved) if job.show_plan else
                  f"{job.name}: {len(resolved.steps)} operators, {len(resolved.sites)} tensors to quantize "
                  f"by recipe {job.recipe}", highlight=False, markup=False)
    if norms == "fold":
        check_untrained(resolved, job.recipe)
    if job.made_up and resolved.repairs:
        raise DataError(f"recipe {job.recipe} wants {', '.join(resolved.repairs)}, which needs data: give --data")
    if job.cache is None:
        simulation = calibrate(model, resolved, batches, processes=processes)
    else:
        console.print(f"ranges are {'read from' if job.cache.exists() else 'kept in'} {job.cache}", highlight=False)
        simulation = calibrate_cached(model, resolved, batches, job.cache, data=batches.digest())
    simulation.follow(profile_of(job.profile))
    return untrained(repair(simulation, batches)) if norms == "fold" else simulation


@options_checked
def planned(net: nn.Module, example: Example, recipe: str | Path | Recipe,
            norms: Literal["fold", "keep"] = "fold") -> tuple[Model, Plan]:
    """A network captured and folded, and the recipe resolved on it."""
    with doing("capturing"):
        model = fold(capture(net, example), norms)
        return model, plan(model, recipe)


def first_two(batches: Iterable[Any]) -> Tensor:
    """The first two inputs, to capture a network by; the first one twice where its batch has no more."""
    example = next(iter(batches))[:2]
    return example if len(example) > 1 else torch.cat([example, example])


def calibration(job: QuantizeJob) -> Inputs:
    """The batches that calibrate."""
    return job.data.draw_calibration(job.seed).inputs(job.batch_size, job.preparation.normalize)


def finish(job: QuantizeJob, simulation: Simulation, console: Console) -> Report:
    """Lowers, writes, reports and exports a simulation of the job's network."""
    batches = calibration(job)
    with doing("lowering"):
        program = lower(simulation, job.profile)
        make_folder(job.out)
        save_verified(program, job.out / "model.fewbits", job.preparation)
    (job.out / "model.onnx").unlink(missing_ok=True)  # another run's would be taken for this program
    test = None if job.data.test.y is None else job.data.test.batches(job.batch_size, job.preparation.normalize)
    reported = list(islice(batches, max(1, _REPORTED_IMAGES // job.batch_size)))
    explanation = explain(simulation, reported[:max(1, len(reported) // 2)]) if job.explain else None
    try:
        report = build(program, simulation, reported, explanation=explanation, test=test, processor=job.processor,
                       engine=job.engine, model=job.name, recipe=job.recipe, float_model=job.net.eval(),
                       sizes=[(item.layer, item.part, item.bytes) for item in sizes(job.out / "model.fewbits")])
    except ExportError as unopened:  # a report compares with ONNX Runtime
        raise ExportError(f"{unopened}; model.fewbits is in {job.out}, and there is no report") from None
    report.save(job.out / "report.html")
    write_whole(job.out / "summary.json", (json.dumps(report.summary(), indent=2) + "\n").encode())
    _export(job, program, batches, console)
    return report


def _advise(job: QuantizeJob, simulation: Simulation, report: Report, console: Console) -> None:
    """Three lines on what costs most, where the network came out far from the float one on data that somebody gave."""
    if job.made_up:
        return
    first = [next(iter(calibration(job)))]
    seen = report.comparison
    sqnr = sqnr_of_outputs((simulation,), first)[0] if seen is None else seen.sqnr
    if not is_far(seen, sqnr):
        return
    flips = "" if seen is None else f", {seen.flips} of {seen.samples} predictions changed"
    console.print(f"far from the float network ({sqnr:.1f} dB{flips}); what costs most:", highlight=False)
    for line in advice(report.explanation or explained(simulation, first), simulation):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _export(job: QuantizeJob, program: Program, batches: Inputs, console: Console) -> None:
    if not program.profile.engine:
        console.print(f"no model.onnx: ONNX Runtime does not compute profile {job.profile}; the report compares "
                      "the other engines", highlight=False)
        return
    try:
        compared = export_onnx(program, job.out / "model.onnx", batches, processor=job.processor)
    except ExportError as refused:
        raise ExportError(f"{refused}; model.fewbits, report.html and summary.json are in {job.out}") from None
    what = "made-up inputs" if job.made_up else "calibration images"
    console.print(f"verified: {compared} outputs on {len(job.data.calibration)} {what}, 0 differ", highlight=False)


def make_folder(path: Path) -> Path:
    """The folder, made where it is not there. Raises FileError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {path}: {error.strerror}") from error
    return path

"""`fewbits search`."""

from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import fields
from itertools import islice
from multiprocessing import get_context
from typing import Any

from rich.console import Console

from fewbits.api import QuantizedModel
from fewbits.cli.opened import opened
from fewbits.cli.train import train
from fewbits.cli.verb import Failed
from fewbits.cli.verbs.search import Search
from fewbits.cli.verbs.shared import Labelled
from fewbits.cli.verbs.train import Train
from fewbits.engines.registry import engine as engine_of
from fewbits.errors import SearchError
from fewbits.files import write_whole
from fewbits.graph.model import Model
from fewbits.lower.lower import lower
from fewbits.optimize.repairs import calibrate_and_repair
from fewbits.program.profile import profile as profile_of
from fewbits.quant.planner import plan
from fewbits.quant.recipe import recipe as recipe_of
from fewbits.report.accuracy import compare
from fewbits.search.limit import Limit
from fewbits.search.space import words
from fewbits.workflow.quantize import make_folder
from fewbits.workflow.search import (
    Found,
    Method,
    check_samples,
    learning,
    plan_text,
    run_search,
    summary,
    table,
    write,
)


def search(asked: Search, console: Console) -> object:
    """The job of the verb."""
    chosen = engine_of(asked.engine)
    job, minimize = opened(asked), asked.minimize
    if asked.fine_tune is not None:
        learning(recipe_of(asked.recipe), asked.fine_tune, job.model)  # refused before anything is searched
    limit = Limit(asked.max_drop, asked.min_sqnr, asked.max_flips)
    check_samples(len(job.data.train))
    count = len(job.data.train)
    deciding = job.data.train.subset(range(max(count - asked.samples, 0), count))  # the first ones calibrate
    console.print(f"{len(job.data.calibration)} images calibrate, the last {len(deciding)} training images decide, "
                  f"and {len(job.data.test)} test images are only reported", highlight=False)
    limits = {name: _bytes(text) for name, text in (("weight-memory", asked.weight_memory),
                                                   ("activation-memory", asked.activation_memory)) if text is not None}
    with _executor(asked.workers, asked.scheduler) as executor:
        samples = list(_batches(deciding, asked.batch_size, job.preparation.normalize))
        found = run_search(job.model, job.calibration, samples, limit, base=asked.recipe,
                           candidates=asked.menu, minimize=minimize, limits=limits, ranges=asked.ranges,
                           repairs=None if asked.repair is None else tuple(words(asked.repair)),
                           method=_method(asked.method), profile=asked.profile, log=asked.log,
                           executor=executor, workers=asked.workers, seed=asked.seed, engine=chosen)
    if found.front:
        table(found, minimize, console)
    console.print(f"{summary(found.point)}\n{found.note}".strip(), highlight=False, markup=False, soft_wrap=True)
    files, tested = write(found, asked.out, minimize, limit), None
    if job.data.test.y is not None and asked.method != "ristretto":
        simulation = calibrate_and_repair(job.model, plan(job.model, found.recipe), job.calibration,
                                          profile=profile_of(asked.profile))
        tested = compare(job.net, QuantizedModel(lower(simulation, asked.profile), chosen),
                         job.data.test.batches(asked.batch_size, job.preparation.normalize))
        low, high = tested.interval
        console.print(f"test images: {tested}, difference {100 * low:+.2f} to {100 * high:+.2f} points (95 %)",
                      highlight=False, markup=False, soft_wrap=True)
    console.print(f"written: {', '.join(str(path) for path in islice(files, 4))}"
                  + (f" and {len(files) - 4} more" if len(files) > 4 else ""), highlight=False)
    told = {"files": files, "point": found.point, "front": [point for _, point in found.front], "excess": found.excess,
            "note": found.note, "test": tested}
    if asked.fine_tune is not None:
        told["fine-tuned"] = _fine_tuned(asked, job.model, found, console)
    if not found.is_within:
        return Failed(SearchError(f"{found.note or 'the plan misses the limit'} (written: {files[0]})"), told)
    return told


def _fine_tuned(asked: Search, model: Model, found: Found, console: Console) -> object:
    """The winner trained by `fewbits train`, from the same weights."""
    assert asked.fine_tune is not None
    folder = make_folder(asked.fine_tuned)
    recipe = folder / "recipe.yaml"
    about = f"plan.yaml, learning as {asked.fine_tune}"
    write_whole(recipe, plan_text(learning(found.recipe, asked.fine_tune, model), about).encode())
    given = {field.name: getattr(asked, field.name) for field in fields(Labelled)}
    return train(Train(network=asked.network, data=asked.data, recipe=str(recipe), out=folder, epochs=asked.epochs,
                       weights=asked.weights, rate=asked.rate, profile=asked.profile, batch_size=asked.batch_size,
                       seed=asked.seed, checkpoint=folder / "checkpoint.pt", **given), console)


def _batches(split: Any, size: int, normalize: Any) -> Any:
    return split.batches(size, normalize) if split.y is not None else split.inputs(size, normalize)


def _method(text: str) -> Method:
    if text not in ("solver", "greedy", "amp", "ristretto"):
        raise SearchError(f"no method is called {text!r}: choose solver, greedy, amp or ristretto")
    return text


def _bytes(text: str) -> float:
    units = {"k": 1024, "m": 1024**2, "g": 1024**3}
    number, unit = (text[:-1], units[text[-1].lower()]) if text and text[-1].lower() in units else (text, 1)
    try:
        return float(number) * unit
    except ValueError:
        raise SearchError(f"{text!r} is no number of bytes: write 65536, 64k or 1M") from None


def _executor(workers: int, scheduler: str | None) -> Any:
    """Whose workers measure, as a context; None for this process."""
    if scheduler is not None:
        try:
            from dask.distributed import Client  # pyright: ignore[reportMissingImports]  # an extra
        except ImportError:
            raise SearchError("--scheduler needs the package dask: pip install 'fewbits[cluster]'") from None
        return Client(scheduler).get_executor()
    if workers == 1:
        return nullcontext()
    pool: Executor = ProcessPoolExecutor(workers, get_context("spawn"))
    return pool

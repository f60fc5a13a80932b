"""`fewbits search`."""

from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fewbits.api import QuantizedModel
from fewbits.cli.data import (
    BatchOption,
    BgrOption,
    DataOption,
    DivideOption,
    Given,
    MeanOption,
    OffsetOption,
    StdOption,
)
from fewbits.cli.opened import opened
from fewbits.errors import SearchError
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.report.accuracy import compare
from fewbits.search.limit import Limit
from fewbits.workflow.search import Method, check_samples, run_search, summary, table, write


def search(
    network: Annotated[str, typer.Argument(help="lenet5, resnet20, …, or package.module:factory")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for plan.yaml, the front's plans, front.svg and the log")],
    weights: Annotated[Path | None, typer.Option(help="A .safetensors, .npz, .pt or compressed .fewbits file")] = None,
    minimize: Annotated[str, typer.Option(
        help="bytes, bits, bops, energy, weight-memory or activation-memory")] = "bytes",
    max_drop: Annotated[float | None, typer.Option(help="Points of accuracy that may be lost")] = None,
    min_sqnr: Annotated[float | None, typer.Option(help="dB that the outputs keep, in the mean")] = None,
    max_flips: Annotated[float | None, typer.Option(help="Percent of the samples whose class may change")] = None,
    weight_memory: Annotated[str | None, typer.Option(help="The most bytes of weights: 256k, 1M")] = None,
    activation_memory: Annotated[str | None, typer.Option(help="The most bytes of activations at once: 64k")] = None,
    menu: Annotated[str, typer.Option(help="Candidates: int, dfp, minifloat, pow2, nf4, joined by commas")] = "int",
    method: Annotated[str, typer.Option(help="solver, or for comparison greedy or ristretto")] = "solver",
    recipe: Annotated[str, typer.Option(help="What is not searched: a preset or a YAML file")] = "w8a8",
    profile: Annotated[str, typer.Option(help="Whose integers: see docs/profiles.md")] = "onnxruntime",
    samples: Annotated[int, typer.Option(min=2, help="Training images that decide")] = 512,
    workers: Annotated[int, typer.Option(min=1, help="Processes that measure")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="A dask scheduler that measures: tcp://host:port")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    label_offset: OffsetOption = None,
    batch_size: BatchOption = 64,
    seed: Annotated[int, typer.Option(help="Of plans drawn at random; which images calibrate")] = 0,
) -> None:
    """Search the plan that costs least and keeps a limit; decided on training images, tested on the test images."""
    console = Console()
    job = opened(network, data, weights, recipe, Given(mean, std, divide, bgr, label_offset), batch_size, seed)
    limit = Limit(max_drop, min_sqnr, max_flips)
    check_samples(len(job.data.train))
    deciding = job.data.train.take(min(samples, len(job.data.train)))
    console.print(f"{len(job.data.calibration)} images calibrate, the first {len(deciding)} training images decide, "
                  f"and {len(job.data.test)} test images are only reported", highlight=False)
    limits = {name: _bytes(text) for name, text in (("weight-memory", weight_memory),
                                                   ("activation-memory", activation_memory)) if text is not None}
    with _executor(workers, scheduler) as executor:
        found = run_search(job.model, job.calibration, list(_batches(deciding, batch_size, job.preparation.normalize)),
                           limit, base=recipe, candidates=menu, minimize=minimize, limits=limits,
                           method=_method(method), profile=profile, log=out / "evaluations.jsonl",
                           executor=executor, workers=workers, seed=seed)
    if found.front:
        table(found, minimize, console)
    console.print(f"{summary(found.point)}\n{found.note}".strip(), highlight=False, markup=False, soft_wrap=True)
    files = write(found, out, minimize, limit)
    if job.data.test.y is not None and method != "ristretto":
        simulation = calibrate(job.model, plan(job.model, found.recipe), job.calibration)
        tested = compare(job.net, QuantizedModel(lower(simulation, profile)),
                         job.data.test.batches(batch_size, job.preparation.normalize))
        low, high = tested.interval
        console.print(f"test images: {tested}, difference {100 * low:+.2f} to {100 * high:+.2f} points (95 %)",
                      highlight=False, markup=False, soft_wrap=True)
    console.print(f"written: {', '.join(str(path) for path in islice(files, 4))}"
                  + (f" and {len(files) - 4} more" if len(files) > 4 else ""), highlight=False)
    if not found.is_within:
        raise SearchError(f"{found.note or 'the plan misses the limit'} (written: {files[0]})")


def _batches(split: Any, size: int, normalize: Any) -> Any:
    return split.batches(size, normalize) if split.y is not None else split.inputs(size, normalize)


def _method(text: str) -> Method:
    if text not in ("solver", "greedy", "ristretto"):
        raise SearchError(f"no method is called {text!r}: choose solver, greedy or ristretto")
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

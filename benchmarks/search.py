"""`python -m benchmarks.search`: plans that the search finds beside Ristretto's, AIMET's and a greedy choice, on
trained networks and real data, as a table in docs/search-measured.md; how well its model predicts; and a front.

Every measurement is kept in build/search/ (a log for each network and menu), so that a run that was ended goes
on, and `--network` and `--method` fill in a part; what came of it stands in benchmarks/records/search.json, from which
the page is made, and a row that stands there is not run again. The photographs have 64 images beside the test
images, which calibrate and decide both; elsewhere training images decide, and none of the test images chooses anything.
"""

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.real_weights import SHARED
from fewbits.capture.capture import capture
from fewbits.data.sets import load
from fewbits.data.split import DataSet
from fewbits.data.weights import apply_weights, load_weights
from fewbits.engines.executable import Executable
from fewbits.errors import FewbitsWarning
from fewbits.files import write_whole
from fewbits.fold.fold import fold
from fewbits.graph.model import Model
from fewbits.lower.lower import lower
from fewbits.optimize.repairs import calibrate_and_repair
from fewbits.plots.axes import Axis
from fewbits.plots.points import Series, points
from fewbits.quant.planner import plan
from fewbits.report.accuracy import compare
from fewbits.report.machine import this_machine
from fewbits.reproduce.recorded import recorded
from fewbits.search.evaluations import Evaluations
from fewbits.search.limit import Limit
from fewbits.search.noise import NoiseModel
from fewbits.search.problem import Problem
from fewbits.search.propagation import Propagation
from fewbits.search.ristretto import WIDTHS, ristretto, ristretto_menu
from fewbits.search.search import (
    Point,
    costs_of,
    drawn,
    effects,
    front,
    search,
    search_greedily,
    search_mixed_precision,
    sensitivities,
)
from fewbits.search.space import Space, menu
from fewbits.tasks.registry import TASKS

FOLDER, TABLE, RECORDS = Path("build/search"), Path("docs/search-measured.md"), Path("benchmarks/records/search.json")
NETWORKS = {"lenet5": ("mnist/lenet5_inhouse.pt", f"mnist:{SHARED / 'mnist'}", 512),
            "resnet20": ("cifar10/resnet20-12fca82f.th", f"cifar10:{SHARED / 'cifar10'}", 128),
            "mobilenet_v1_025": ("imagenet/mobilenetv1_025_state_dict.pt",
                                 f"images:{SHARED / 'imagenet/nips17_dev200'}", 64)}
"""Weights, data, and how many images decide: the last training images; the first ones calibrate."""
RULES = {"lenet5": ("minmax", "mse"), "resnet20": ("mse",), "mobilenet_v1_025": ("mse",)}
"""Range rules of the menu; one alone where a measurement takes long."""
LIMITS = {"lenet5": (Limit(sqnr=25.0), Limit(flips=1.0)), "resnet20": (Limit(sqnr=20.0), Limit(flips=2.0)),
          "mobilenet_v1_025": (Limit(sqnr=15.0), Limit(flips=20.0))}
"""Set before any result was seen."""
REPAIRS = ("adaround", "bias-correction")
METHODS = ("ristretto", "ristretto, margin narrowed", "AMP", "greedy", "search", "search, repaired")
STUDIES = {"8 to 2 bits, least squared error": (("mse",), (8, 7, 6, 5, 4, 3, 2), (300, 1200)),
           "8 to 4 bits, min-max": (("minmax",), (8, 7, 6, 5, 4), (300,))}
"""Range rules, widths, and how many plans teach the models."""
_MARGINS = 8  # of Ristretto, each 3 dB more than the one before, or 0.7 of its flips


@dataclass(frozen=True)
class Row:
    """One plan. bits: of weights and activations; kept: whether it keeps the limit on the images that decide; decided:
    dB and flips there; the rest of held-back images: accuracies, exact 95 % interval of their difference, flips, dB;
    seconds: of the processor; machine: which processor; bound: bits that no plan goes below whose noise is, by the
    model of the search in the end, that of its plan."""

    bits: float
    kept: bool
    decided: tuple[float, int, int]
    float_accuracy: float
    accuracy: float
    interval: tuple[float, float]
    flips: int
    images: int
    sqnr: float
    seconds: float
    machine: str
    bound: float | None = None


@dataclass(frozen=True)
class Subject:
    """A trained network and what decides about it."""

    name: str
    net: nn.Module
    model: Model
    data: DataSet
    calibration: Any
    deciding: list[Any]


def subject(name: str) -> Subject:
    """The network with its weights and data."""
    task, (weights, data, count) = TASKS[name], NETWORKS[name]
    net = task.build().eval()
    apply_weights(net, load_weights(SHARED / weights), weights)
    split = load(data, task.example_shape).relabelled(task.label_offset)
    calibration = split.calibration.inputs(64, task.normalize)
    images = len(split.train)
    deciding = split.train.subset(range(max(images - count, 0), images)).batches(64, task.normalize)
    return Subject(name, net, fold(capture(net, next(iter(calibration))[:2])), split, calibration, list(deciding))


def evaluations(of: Subject, kind: str, space: Space) -> Evaluations:
    """Measurements of a menu, kept."""
    return Evaluations(Problem.of(space, of.calibration, of.deciding), FOLDER / f"{of.name}-{kind}.jsonl")


def row(of: Subject, limit: Limit, method: str) -> Row:
    """One method under one limit, and what its plan does on the held-back images."""
    begun = time.process_time()
    if method.startswith("ristretto"):
        return _ristretto(of, limit, method, begun)
    repairs = REPAIRS if method == "search, repaired" else ()
    ranges = ("minmax",) if method == "AMP" else RULES[of.name]
    space = Space.of(of.model, "w8a8", menu("int", ranges), repairs)
    known, bound = evaluations(of, "minmax" if method == "AMP" else "int", space), None
    match method:
        case "AMP":
            point = search_mixed_precision(known, limit)
        case "greedy":
            point = search_greedily(known, "bits", limit)
        case _:
            found = search(known, "bits", limit)
            point, bound = found.closest, None if repairs else found.bound
    simulation = calibrate_and_repair(of.model, plan(of.model, space.recipe(point.assignment)), of.calibration)
    seconds = time.process_time() - begun
    return replace(_row(of, limit, known.problem, point, Executable(lower(simulation)), seconds), bound=bound)


def _ristretto(of: Subject, limit: Limit, method: str, begun: float) -> Row:
    """Its search once; or again and again under a narrower margin, until the combination keeps the limit."""
    space = Space.of(of.model, "w8a8", ristretto_menu())
    known = evaluations(of, "ristretto", space)
    asked = limit
    found = ristretto(known, asked)
    for _ in range(_MARGINS):
        if limit.excess(known.problem, found.combined) <= 0 or not method.endswith("narrowed"):
            break
        asked = Limit(sqnr=asked.sqnr + 3) if asked.sqnr is not None else Limit(flips=0.7 * (asked.flips or 0.0))
        found = ristretto(known, asked)
    bits = costs_of(space)["bits"].linear
    whole = sum(float(bits[at][0]) * 32 / WIDTHS[0] if number is None else float(bits[at][number])
                for at, number in enumerate(found.assignment))
    point = Point(tuple(number or 0 for number in found.assignment), {"bits": whole}, found.combined)
    print(f"{of.name} {method} {limit}: {found.suggestion}", flush=True)
    return _row(of, limit, known.problem, point, known.problem.simulation(found.assignment),
                time.process_time() - begun)


def _row(of: Subject, limit: Limit, problem: Problem, point: Point, quantized: Any, seconds: float) -> Row:
    task, decided = TASKS[of.name], point.measured
    seen = compare(of.net, quantized, of.data.test.batches(64, task.normalize))
    return Row(point.costs["bits"], limit.excess(problem, decided) <= 0,
               (decided.sqnr, decided.flips, decided.samples), seen.float_accuracy.mean, seen.accuracy.mean,
               seen.interval, seen.flips, seen.samples, seen.sqnr, seconds, this_machine().processor)


def study(of: Subject, studied: str) -> dict[str, Any]:
    """How the models rank plans that did not correct them: 200 drawn uniformly from the menu, and 100 within 5 % of
    one budget of bytes, that of half way between the least and the most (each a uniform draw, moved to the budget)."""
    ranges, widths, counts = STUDIES[studied]
    whole = menu("int", ranges)
    keep = [at for at, text in enumerate(whole.weights) if int((text.format or "int8")[3:]) in widths]
    chosen = replace(whole, weights=tuple(whole.weights[at] for at in keep),
                     activations=tuple(whole.activations[at] for at in keep))
    space = Space.of(of.model, "w8a8", chosen)
    known, begun = evaluations(of, f"study-{ranges[0]}", space), time.process_time()
    alone = sensitivities(known)
    parts = effects(known, alone)
    cost = costs_of(space)["bytes"]
    training = drawn(alone, max(counts), 2)
    noises = [each.noise for each in known.measured(training, "program", "plans that teach")]
    seconds = time.process_time() - begun
    budget = 0.5 * (cost.of(space.finest) + cost.of(tuple(len(group.specs) - 1 for group in space.groups)))
    tests = {"uniform": drawn(alone, 200, 11), "one budget": _level(space, cost, budget, 100, 12)}
    found: dict[str, Any] = {"alone": sum(map(len, alone)), "seconds": seconds, "budget": budget, "taught": {},
                             "images": known.problem.samples, "machine": this_machine().processor}
    for name, plans in tests.items():
        found[name] = {"measured": [each.noise for each in known.measured(plans, "program", name)],
                       "uncorrected": _rank([NoiseModel.of(alone).predict(each) for each in plans],
                                            [each.noise for each in known.measured(plans)])}
    for taught in counts:
        learned, told = training[:taught], noises[:taught]
        summed = NoiseModel.of(alone).corrected(learned, told)
        carried = Propagation.of(parts).corrected(learned, told)
        for name, plans in tests.items():
            predicted = carried.predict(plans).tolist()
            found["taught"].setdefault(name, {})[str(taught)] = {
                "summed": _rank([summed.predict(each) for each in plans], found[name]["measured"]),
                "carried": _rank(predicted, found[name]["measured"])}
            found[name]["predicted"] = predicted
    return found


def _level(space: Space, cost: Any, budget: float, count: int, seed: int) -> list[tuple[int, ...]]:
    """Plans drawn uniformly, then moved one tensor at a time, at random, until their cost is within 5 % of a budget."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        each = [int(rng.integers(len(group.specs))) for group in space.groups]
        while abs((now := cost.of(tuple(each))) / budget - 1) > 0.05:
            at = int(rng.integers(len(each)))
            each[at] = int(np.clip(each[at] + (1 if now > budget else -1), 0, len(space.groups[at].specs) - 1))
        found.append(tuple(each))
    return found


def _rank(a: list[float], b: list[float]) -> float:
    """Spearman's correlation of ranks."""
    first, second = (np.argsort(np.argsort(np.array(each))) for each in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def _scattered(found: dict[str, Any], name: str, title: str) -> None:
    part = found[name]
    picture = points(title, Axis("predicted noise of the outputs", True), Axis("measured", True),
                     [Series("plans", part["predicted"], part["measured"])])
    picture.save(TABLE.parent / "pictures" / f"search-{name.replace(' ', '-')}.svg")


def main() -> None:
    """Fills in what is not there yet, and writes the page."""
    parser = argparse.ArgumentParser(description="Searched plans, measured.")
    parser.add_argument("--network", choices=[*NETWORKS], action="append")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--study", action="store_true", help="how well the model ranks plans of ResNet-20")
    parser.add_argument("--front", action="store_true", help="the front of ResNet-20, and again from the log")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", FewbitsWarning)
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    RECORDS.parent.mkdir(exist_ok=True)
    rows: dict[str, Any] = {}

    def known() -> None:
        """Another run may have added to it."""
        rows.update(json.loads(RECORDS.read_text()) if RECORDS.exists() else {})

    def keep(key: str, value: Any) -> None:
        known()
        rows[key] = value
        write_whole(RECORDS, (json.dumps(rows, indent=1) + "\n").encode())

    known()
    if asked.study:
        of = subject("resnet20")
        for name in STUDIES:
            if f"study, {name}" not in rows:
                keep(f"study, {name}", study(of, name))
    if asked.front and "front" not in rows:
        keep("front", _front(subject("resnet20")))
    if not (asked.study or asked.front):
        for name in asked.network or NETWORKS:
            of = subject(name)
            for limit in LIMITS[name]:
                for method in asked.method or METHODS:
                    key = f"{name} | {limit} | {method}"
                    if key not in rows:
                        keep(key, asdict(row(of, limit, method)))
                        print(key, rows[key], flush=True)
    write_page(rows)


def _front(of: Subject) -> dict[str, Any]:
    """A search from scratch by its clock, then again from its log, and the uniform plans beside."""
    path = FOLDER / "front.jsonl"
    path.unlink(missing_ok=True)
    space = Space.of(of.model, "w8a8", menu("int", RULES[of.name]))
    times, processor = [], []
    known = found = None
    for _ in range(2):
        begun, cpu = time.perf_counter(), time.process_time()
        known = Evaluations(Problem.of(space, of.calibration, of.deciding), path)
        found = search(known, "bytes", Limit(sqnr=20.0))
        times.append(time.perf_counter() - begun)
        processor.append(time.process_time() - cpu)
    assert known is not None and found is not None
    best = front(found.points, "bytes")
    cost = costs_of(space)["bytes"]
    uniform = {}
    for bits in (8, 6, 4):
        assignment = tuple(next(at for at, spec in enumerate(group.specs) if spec.format.bits == bits)
                           for group in space.groups)
        uniform[bits] = (cost.of(assignment), known.measured([assignment])[0].sqnr)
    return {"seconds": times, "processor": processor, "measured": len(found.points),
            "points": [(point.costs["bytes"], point.measured.sqnr) for point in best], "uniform": uniform}


def write_page(rows: dict[str, Any]) -> None:
    """docs/search-measured.md, and its pictures."""
    (TABLE.parent / "pictures").mkdir(exist_ok=True)
    lines = [_HEAD]
    for name in NETWORKS:
        for limit in LIMITS[name]:
            found = {method: rows[key] for method in METHODS if (key := f"{name} | {limit} | {method}") in rows}
            if found:
                lines += [f"\n### {name}, {limit}\n", _TABLE_HEAD, *(_line(method, each, found)
                                                                     for method, each in found.items())]
                machines = dict.fromkeys(each["machine"] for each in found.values())
                lines.append("\n" + "; ".join(f"{machine}: " + ", ".join(
                    method for method, each in found.items() if each["machine"] == machine) for machine in machines)
                    + "." if len(machines) > 1 else f"\nOn {next(iter(machines))}.")
    studies = {key.removeprefix("study, "): each for key, each in rows.items() if key.startswith("study, ")}
    if studies:
        lines.append(_studied(studies))
        widest = studies["8 to 2 bits, least squared error"]
        _scattered(widest, "uniform", "ResNet-20: 200 plans drawn uniformly, 8 to 2 bits")
        _scattered(widest, "one budget", "ResNet-20: 100 plans within 5 % of one budget of bytes")
    lines.append(_of_the_document())
    if "front" in rows:
        each = rows["front"]
        lines.append(_FRONT.format(first=each["seconds"][0], again=each["seconds"][1], processor=each["processor"][0],
                                   processor_again=each["processor"][1], measured=each["measured"]))
        uniform = each["uniform"]
        points("ResNet-20: bytes and signal to noise", Axis("bytes", True), Axis("dB"),
               [Series("front", *zip(*each["points"], strict=True), line=True),
                Series("one width", [a for a, _ in uniform.values()], [b for _, b in uniform.values()],
                       [f"{bits} bits" for bits in uniform])]).save(TABLE.parent / "pictures" / "search-front.svg")
    write_whole(TABLE, ("\n".join(lines) + "\n").encode())


def _studied(studies: Mapping[str, Any]) -> str:
    """How well noise was predicted."""
    first = next(iter(studies.values()))
    lines = [_STUDY.format(images=first["images"], machine=first["machine"])]
    for name, each in studies.items():
        for taught in each["taught"]["uniform"]:
            cells = [each[plans]["uncorrected"] if model == "alone" else each["taught"][plans][taught][model]
                     for plans in ("uniform", "one budget") for model in ("alone", "summed", "carried")]
            lines.append(f"| {name} | {taught} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    told = "; ".join(f"{name}: {each['alone']} plans of one coarse tensor and {max(STUDIES[name][2])} that teach, "
                     f"{each['seconds']:.0f} CPU s" for name, each in studies.items())
    return "\n".join([*lines, f"\n{told}.", "\n![uniform](pictures/search-uniform.svg)",
                      "![one budget](pictures/search-one-budget.svg)"])


def _of_the_document() -> str:
    """Ristretto's own rows, and what their reproductions came to."""
    lines, found = [_DOCUMENT], recorded()

    def figures(values: Mapping[str, float], name: str) -> str:
        told = [values.get(f"{name}, {when}") for when in ("before", "after")]
        return " → ".join("–" if value is None else f"{value:.2f}" for value in told)

    for network, row, formats in _DOCUMENTS:
        known = found[row]
        ours = f"{known.measured['float']:.2f}" if "float" in known.measured else "–"
        for name in formats:
            lines.append(f"| {network} | {name} | {known.published['float']:.2f} | {figures(known.published, name)} | "
                         f"{ours} | {figures(known.measured, name)} | {known.seeds} |")
    return "\n".join(lines)


def _line(method: str, each: dict[str, Any], beside: dict[str, Any]) -> str:
    low, high = each["interval"]
    decided, flips, samples = each["decided"]
    against = []
    for other in ("ristretto, margin narrowed", "AMP", "greedy"):
        if method.startswith("search") and other in beside and beside[other]["kept"]:
            against.append(f"{100 * (each['bits'] / beside[other]['bits'] - 1):+.0f} %")
        else:
            against.append("")
    kept = "yes" if each["kept"] else "no"
    return (f"| {method} | {each['bits'] / 1000:.1f} | {kept} | {decided:.1f} dB, {flips} of {samples} | "
            f"{100 * each['accuracy']:.2f} ({100 * low:+.2f} to {100 * high:+.2f}) | {each['flips']} of "
            f"{each['images']} | {each['sqnr']:.1f} | {' | '.join(against)} | "
            f"{'' if each.get('bound') is None else format(each['bound'] / 1000, '.1f')} | {each['seconds']:.0f} |")


_TABLE_HEAD = """| method | kilobits | kept | deciding images | test top-1, % (less float) | flips | dB | \
beside Ristretto | AMP | greedy | bound | CPU s |
|---|---|---|---|---|---|---|---|---|---|---|---|"""
_DOCUMENTS = (("LeNet (Caffe)", "ristretto-lenet-tuned", ("4/4/4", "4/2/2")),
              ("full CIFAR-10 (Caffe)", "ristretto-cifar10-tuned", ("8/8/8",)),
              ("SqueezeNet", "ristretto-squeezenet", ("8 bits",)))
_DOCUMENT = """
## What Ristretto's search came to in its document

Bits of activations/convolutions/linear layers, in dynamic fixed point, and accuracy in %, before and after
fine-tuning; beside it the same bits on networks trained here (means over seeds, [reproductions](reproductions.md)).

| network | bits | document: float | before → after | here: float | before → after | seeds |
|---|---|---|---|---|---|---|"""
_HEAD = """# Searched plans, measured

Made by `python -m benchmarks.search` on real weights and data. Kilobits: all weights, and every activation of one
input. A limit holds on the images that decide, which are no test images; the test accuracy stands with the exact
95 % interval of its difference from float, image by image. Limits were set before any result was seen. CPU seconds of
one thread, less what a method found in the log of another. The Xeon is of family 6, model 167, with AMX.

- **ristretto**: its search as it is: three sweeps, one combination, which may miss the limit. *Margin narrowed*: its
  user asks for more until the combination keeps the limit.
- **AMP**: AIMET's automatic mixed precision (phases 1 and 2, 8 to 2 bits, min-max), written here: the package runs on
  this machine only with a stand-in for torchvision.
- **greedy**: tensor by tensor, the least noise over what is saved first, in the same menu as the search (8 to 2 bits,
  least squared error; LeNet-5 also min-max). It goes on past a candidate that breaks the limit, which the tools do not.
- **search**: `fewbits search --minimize bits`. *Repaired*: with `--repair adaround,bias-correction`. *Bound*: kilobits
  that no plan goes below which the search's model, as it was in the end, gives no more noise than its plan: proved by
  the solver, of the model. (A repaired plan has less noise than the model knows of, and no bound. Rows of the search
  without one, and the front, are from before plans one step from the best were ranked by what arrives of their errors.)

Limits in dB leave little to a better choice of the same candidates: the greedy choice, which goes on where the tools
stop, lies within some percent of the bound. What goes below it are repairs, which put less noise into the same bits.

A limit on flips among few images is kept by chance, too: every method chooses among many plans by the same images, and
on the test images more classes change than were allowed, most where the choice was widest. Limits in dB carry over to
about 1 dB."""
_STUDY = """
## How well noise is predicted

ResNet-20, the last {images} training images, on {machine}.
Spearman's correlation of predicted and measured noise, of plans that taught no model and whose seed was drawn when the
models stood: 200 drawn uniformly from the menu, and 100 within 5 % of one budget of bytes, half way between the least
and the most. *Alone*: what each tensor does alone, added up. *Sum*: the power of a sum with a factor for each tensor,
which the solver reckons with (search/noise.py). *Carried*: what of each error arrives (search/propagation.py).
From 8 to 2 bits most plans drawn uniformly destroy the outputs, of which a quarter is left in the median, and no longer
add noise to them: there the 0.95 of uniform plans that was aimed at is missed. (Within a budget it was 0.8.)

| menu | plans that taught | uniform: alone | sum | carried | one budget: alone | sum | carried |
|---|---|---|---|---|---|---|---|"""
_FRONT = """
## A front

ResNet-20 by bytes: {first:.0f} s from scratch ({processor:.0f} s of one processor; beside other work), {again:.1f} s
again from its log ({processor_again:.1f} s of a processor), imports and reading of the data aside; {measured} programs
measured. A rerun finds no range anew: the log is known by what decides the ranges. 10 s were aimed at.

![front](pictures/search-front.svg)"""


if __name__ == "__main__":
    main()

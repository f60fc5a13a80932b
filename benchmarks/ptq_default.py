"""`python -m benchmarks.ptq_default`: what `fb.quantize` does unasked beside ONNX Runtime and NNCF, in one run.

Eight networks (the four of docs/ptq.md, and those of benchmarks/ptq_cases.py), three draws of the calibration inputs;
written to docs/ptq-default.md. Each cell is cached in build/ptq_default.json, so that a run that was stopped goes on:
`--minutes 9` begins no cell after nine CPU minutes. NNCF runs where it is installed (the `benchmark` extra).
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks import ptq_nncf
from benchmarks.ptq import NETWORKS, Bench, Network
from benchmarks.ptq_cases import CASES, Case, Outputs, likeliest
from benchmarks.ptq_peers import PEERS, quantized_by_onnxruntime
from fewbits.api import quantize
from fewbits.files import write_whole
from fewbits.report.intervals import paired_difference
from fewbits.report.machine import this_machine

CACHE, TABLE, SEEDS = Path("build/ptq_default.json"), Path("docs/ptq-default.md"), (0, 1, 2)
OURS, DEFAULT = ("w8a8", "default-w8a8"), "default-w8a8"
ROWS = (*OURS, *PEERS, ptq_nncf.NAME)
BAR = 0.2  # dB that the default may lie below the best peer


@dataclass(frozen=True)
class Cell:
    """sqnr: dB, mean over test inputs and outputs; flipped: the decisions that changed, by number; decisions: how many
    there are; seconds: of CPU, of the whole call, one thread; note: why there is no figure."""

    sqnr: float
    flipped: tuple[int, ...]
    decisions: int
    seconds: float
    note: str = ""


def case_of(network: Network) -> Case:
    """A network of docs/ptq.md, its data drawn there as there."""
    bench = Bench(network)
    test = torch.cat([x for x, _ in bench.test])

    class Drawn(Case):
        def draw(self, seed: int) -> list[torch.Tensor]:
            return bench.images(seed)

    def classes(outputs: Outputs, of_float: Outputs) -> torch.Tensor:
        return likeliest((outputs[0][:, network.skip:],), of_float)

    empty = torch.zeros(0)
    return Drawn(network.name, bench.net, empty, empty, test, min(100, bench.batch), classes)


def measured(case: Case, quantized: Callable[[torch.Tensor], Any], truth: list[Outputs], seconds: float) -> Cell:
    """A quantized network beside the float one, on the test inputs."""
    decibels, flipped, decisions = [], [], 0
    classes = case.classes
    for x, wanted in zip(case.test.split(case.batch), truth, strict=True):
        got = outputs_of(quantized, x)
        decibels.append(torch.stack([_sqnr(a, b) for a, b in zip(wanted, got, strict=True)]).mean(0))
        if classes is not None:
            changed = classes(wanted, wanted) != classes(got, wanted)
            flipped += (decisions + changed.nonzero().flatten()).tolist()
            decisions += len(changed)
    return Cell(float(torch.cat(decibels).mean()), tuple(flipped), decisions, seconds)


def outputs_of(net: Callable[[torch.Tensor], Any], x: torch.Tensor) -> Outputs:
    """All that it returns, in order."""
    with torch.no_grad():
        return tuple(pytree.tree_leaves(net(x)))


def _sqnr(wanted: torch.Tensor, got: torch.Tensor) -> torch.Tensor:
    """dB of each input, float64 [N], each at most 144.5."""
    signal, noise = (part.double().square().flatten(1).sum(1) for part in (wanted, wanted - got))
    return 10 * torch.log10(signal / noise.clamp(min=signal * 10**-14.45))


def quantized_by(name: str, case: Case, batches: list[torch.Tensor]) -> Callable[[torch.Tensor], Any]:
    """The network as a row's tool quantizes it, by its verb and defaults."""
    if name in OURS:
        return quantize(case.net, batches[0][:2], batches, recipe=name)
    if name == ptq_nncf.NAME:
        return ptq_nncf.quantized_by_nncf(case.net, batches)
    return quantized_by_onnxruntime(case.net, batches, name)


def run(only: list[str], minutes: float, cache: dict[str, dict]) -> None:
    """Fills the cache until everything is there or the CPU minutes are spent."""
    makers: dict[str, Callable[[], Case]] = {
        network.name: lambda network=network: case_of(network) for network in NETWORKS} | CASES
    cases: dict[str, tuple[Case, list[Outputs]]] = {}
    for seed, (name, make) in ((seed, item) for seed in SEEDS for item in makers.items()):
        missing = [row for row in ROWS if f"{name} | {row} | {seed}" not in cache
                   and (row != ptq_nncf.NAME or ptq_nncf.is_installed())]
        if not missing or (only and name not in only):
            continue
        for row in missing:
            if time.process_time() > 60 * minutes:
                return
            if name not in cases:
                made = make()
                cases[name] = made, [outputs_of(made.net, x) for x in made.test.split(made.batch)]
            case, truth = cases[name]
            batches, start = case.draw(seed), time.process_time()
            try:
                quantized = quantized_by(row, case, batches)
                cell = measured(case, quantized, truth, time.process_time() - start)
            except Exception as error:  # of another's tool: that it fails is the finding
                if row in OURS:
                    raise
                told = str(error).strip().splitlines() or [""]
                cell = Cell(float("nan"), (), 0, 0.0, f"{type(error).__name__}: {told[0][:120]}")
            cache[f"{name} | {row} | {seed}"] = asdict(cell)
            print(name, row, seed, f"{cell.sqnr:.2f} dB", f"{len(cell.flipped)} flips", f"{cell.seconds:.2f} s",
                  cell.note, flush=True)
            write_whole(CACHE, json.dumps(cache).encode())


def page(cache: dict[str, dict], names: list[str]) -> str:
    """The table of every network, and the comparison with the best peer."""
    nncf = f", nncf {metadata.version('nncf')}" if ptq_nncf.is_installed() else ""
    lines, missing = [_PREFACE.format(machine=f"{this_machine()}{nncf}")], []
    for name in names:
        lines += [f"\n## {name}\n", "| quantized by | SQNR, dB (each seed) | flips | CPU s | note |",
                  "|---|---|---|---|---|"]
        means: dict[str, float] = {}
        for row in ROWS:
            cells = [cache[key] for seed in SEEDS if (key := f"{name} | {row} | {seed}") in cache]
            if len(cells) < len(SEEDS):
                missing.append(f"{name}, {row}: {len(cells)} of {len(SEEDS)} seeds")
            good = [cell for cell in cells if not cell["note"]]
            if not good:
                lines += [f"| {row} | | | | {cells[0]['note']} |"] if cells else []
                continue
            means[row] = statistics.mean(cell["sqnr"] for cell in good)
            flips = ", ".join(str(len(cell["flipped"])) for cell in good)
            flips = f"{flips} of {good[0]['decisions']}" if good[0]["decisions"] else ""
            each = ", ".join(f"{cell['sqnr']:.1f}" for cell in good)
            lines.append(f"| {row} | **{means[row]:.1f}** ({each}) | {flips} | "
                         f"{statistics.mean(cell['seconds'] for cell in good):.1f} | "
                         f"{next((cell['note'] for cell in cells if cell['note']), '')} |")
        lines += _verdict(name, cache, means)
    if missing:
        lines += ["\n## Not run\n", *(f"- {item}" for item in missing)]
    return "\n".join(lines) + "\n"


def _verdict(name: str, cache: dict[str, dict], means: dict[str, float]) -> list[str]:
    theirs = {row: mean for row, mean in means.items() if row not in OURS}
    if DEFAULT not in means or not theirs:
        return []
    best = max(theirs, key=lambda row: theirs[row])
    lines = [f"\nThe best peer by SQNR is {best}: {means[DEFAULT] - theirs[best]:+.1f} dB"
             + ("" if means[DEFAULT] >= theirs[best] - BAR else f" (**below the bar of −{BAR} dB**)") + "."]
    for row in theirs:
        both = [(cache[f"{name} | {DEFAULT} | {seed}"], cache[f"{name} | {row} | {seed}"]) for seed in SEEDS
                if f"{name} | {row} | {seed}" in cache and f"{name} | {DEFAULT} | {seed}" in cache]
        both = [(ours, other) for ours, other in both if ours["decisions"] and not other["note"]]
        if both:
            intervals = []
            for ours, other in both:
                one, two = set(ours["flipped"]), set(other["flipped"])
                low, high = paired_difference(len(one - two), len(two - one), ours["decisions"])
                intervals.append(f"{100 * low:+.1f} … {100 * high:+.1f}")
            lines.append(f"Flips less those of {row}, exact paired 95 % interval in points: {'; '.join(intervals)}.")
    lines.append(f"Time of the call, `{DEFAULT}` over `w8a8`: {_time(name, cache):.1f}.")
    return [lines[0], *(f"- {line}" if line.startswith("Flips") else f"\n{line}" for line in lines[1:])]


def _time(name: str, cache: dict[str, dict]) -> float:
    seconds = [[cache[key]["seconds"] for seed in SEEDS if (key := f"{name} | {row} | {seed}") in cache]
               for row in (DEFAULT, "w8a8")]
    return sum(seconds[0]) / max(sum(seconds[1]), 1e-9)


def main() -> None:
    """Runs what is missing, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", default=[], help="a network; may be repeated")
    parser.add_argument("--minutes", type=float, default=60, help="CPU minutes after which no new cell is begun")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cache = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    run(given.only, given.minutes, cache)
    write_whole(TABLE, page(cache, [*(network.name for network in NETWORKS), *CASES]).encode())
    print(f"written: {TABLE}")


_PREFACE = """# What `quantize` does unasked, beside other tools

Written by `python -m benchmarks.ptq_default`. `default-w8a8` is what `fb.quantize` and `fewbits quantize` take where no
recipe is named (activation ranges of least squared error, 12 bits for inner sums and scores, corrected biases);
`w8a8` is plain min-max. Both are integer Programs. ONNX Runtime's rows: `quantize_static`, QDQ, weights per channel,
uint8 activations, defaults otherwise; NNCF's: `nncf.quantize`, preset mixed, all batches, defaults otherwise, run as
the simulation that it gives. All take the same batches, for three draws of the calibration inputs, in the same run.

SQNR: of each test input's outputs against the float network's, mean over inputs (and over outputs where there are two).
Flips: decisions that changed: the top-1 class of a picture, the likeliest next character at each of 12 800 places,
the class at the detector's surest place; a denoiser decides nothing. CPU seconds are of the tool's whole call, one
thread, on a machine that others used too: compare them with one another only. The first four networks are those of
docs/ptq.md; the transformer is trained on the works of Shakespeare (docs/real-weights.md), the other three by this
benchmark, small, on digits and pictures. The recurrent network's gates are linear layers in a loop: ONNX Runtime and
NNCF leave `nn.LSTM` itself in float.

{machine}
"""


if __name__ == "__main__":
    main()

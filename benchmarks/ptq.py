"""`python -m benchmarks.ptq`: accuracy after training-free quantization, as a table in docs/ptq.md.

Networks × bit widths × repairs × calibration seeds. Each cell is cached in build/ptq.json under its name, so a run that
was stopped goes on, and `--only resnet20` fills in a part. Everything is measured on integer Programs against
the float network, image by image. Choices (the best range rule) are made on calibration images only.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from fewbits.api import lower
from fewbits.files import write_whole
from fewbits.graph.capture import capture
from fewbits.graph.fold import fold
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.optimize.bias_correction import correct_biases
from fewbits.optimize.chains import chains
from fewbits.optimize.equalize import equalize
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare
from fewbits.report.machine import this_machine
from fewbits.tasks.data import load
from fewbits.tasks.registry import TASKS
from fewbits.tasks.split import DataSet
from fewbits.tasks.weights import apply_weights, load_weights

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CACHE = Path("build/ptq.json")
TABLE = Path("docs/ptq.md")
SEEDS = (0, 1, 2)
REPAIR_IMAGES = 512  # of the calibration images: bias correction and AdaRound keep all of theirs in memory
CHOICE_IMAGES = 256  # to calibrate a candidate range rule; as many others to score it


@dataclass(frozen=True)
class Network:
    """name: of the task; weights, data: below shared/data."""

    name: str
    weights: str
    data: str


NETWORKS = (
    Network("resnet20", "cifar10/resnet20-12fca82f.th", "cifar10:cifar10"),
    Network("lenet5", "mnist/lenet5_inhouse.pt", "mnist:mnist"),
    Network("resnet56", "cifar10/resnet56-4bfd9763.th", "cifar10:cifar10"),
)


@dataclass(frozen=True)
class Setting:
    """Bits of weights and activations, and who shares a weight scale."""

    weights: int
    activations: int
    block: str = "channel"

    def __str__(self) -> str:
        return f"W{self.weights}A{self.activations} per {self.block}"

    def recipe(self, weight_range: str = "minmax", activation_range: str = "minmax") -> Recipe:
        """Symmetric weights, asymmetric activations."""
        return Recipe.model_validate({
            "version": 1,
            "weights": {"format": f"int{self.weights}", "symmetric": True, "block": self.block,
                        "range": weight_range},
            "activations": {"format": f"uint{self.activations}", "symmetric": False, "block": "tensor",
                            "range": activation_range}})


SETTINGS = (Setting(8, 8), Setting(8, 8, "tensor"), Setting(6, 6), Setting(4, 8), Setting(4, 4))
WEIGHT_RULES = ("minmax", "mse")
ACTIVATION_RULES = ("minmax", "percentile(99.99)", "mse", "kl")
REPAIRS = ("min-max", "best range", "+ equalization", "+ bias correction", "AdaRound (min-max)",
           "AdaRound (best range)")


@dataclass(frozen=True)
class Cell:
    """One measurement. sqnr: mean over test images, dB; flips: top-1 changes; low, high: exact 95 % interval of the
    accuracy's change, in points; seconds: of CPU, to quantize and repair; note: what was chosen."""

    sqnr: float
    flips: int
    images: int
    low: float
    high: float
    seconds: float
    note: str = ""


class Bench:
    """One network, its data, and what its cells share."""

    def __init__(self, network: Network):
        task, kind = TASKS[network.name], network.data.split(":")
        self.network, self.normalize = network, task.normalize
        self.net: nn.Module = task.build()
        apply_weights(self.net, load_weights(SHARED / network.weights), network.weights)
        self.net.eval()
        self.data: DataSet = load(f"{kind[0]}:{SHARED / kind[1]}")
        self.test = self.data.test.batches(250, self.normalize)

    def images(self, seed: int, start: int, count: int) -> list[torch.Tensor]:
        """Calibration images [start, start + count) of a seed, in batches of 64."""
        split = self.data.draw_calibration(seed)
        return list(split.subset(range(start, start + count)).inputs(64, self.normalize))

    def simulation(self, recipe: Recipe, batches: list[torch.Tensor]) -> Simulation:
        model = fold(capture(self.net, batches[0][:2]))
        return calibrate(model, plan(model, recipe), batches)

    def best_rules(self, setting: Setting) -> tuple[str, str]:
        """The weight and the activation rule of the highest logit SQNR on other calibration images than theirs."""
        batches, others = self.images(0, 0, CHOICE_IMAGES), self.images(0, CHOICE_IMAGES, CHOICE_IMAGES)
        labelled = [(x, torch.zeros(len(x), dtype=torch.int64)) for x in others]  # labels play no part in SQNR
        scored = {}
        for weight_rule in WEIGHT_RULES if setting.weights < 8 else WEIGHT_RULES[:1]:
            for rule in ACTIVATION_RULES:
                simulation = self.simulation(setting.recipe(weight_rule, rule), batches)
                scored[weight_rule, rule] = compare(self.net, simulation, labelled).sqnr
        return max(scored, key=lambda rules: scored[rules])

    def cell(self, setting: Setting, repair: str, seed: int, rules: tuple[str, str]) -> Cell:
        """Quantizes, repairs, lowers and measures."""
        start = time.process_time()
        batches = self.images(seed, 0, len(self.data.calibration))
        some = batches[:REPAIR_IMAGES // 64]
        plain = repair in ("min-max", "AdaRound (min-max)")
        simulation = self.simulation(setting.recipe() if plain else setting.recipe(*rules), batches)
        if repair in ("+ equalization", "+ bias correction") and chains(simulation.model):
            simulation = equalize(simulation, batches)
        if repair.startswith("AdaRound"):
            simulation = adaround(simulation, some, schedule=Schedule())
        if repair == "+ bias correction":
            simulation = correct_biases(simulation, some)
        seconds = time.process_time() - start
        measured = compare(self.net, lower(simulation), self.test)
        low, high = measured.interval
        return Cell(measured.sqnr, measured.flips, len(self.data.test), 100 * low, 100 * high, seconds,
                    "" if plain else f"weights {rules[0]}, activations {rules[1]}")


def cells() -> Iterator[tuple[Network, Setting, str, int]]:
    """Every cell in the order of importance."""
    for network in NETWORKS:
        for seed in SEEDS:
            for setting in SETTINGS:
                for repair in REPAIRS:
                    if repair.startswith("AdaRound") and setting != Setting(4, 8):
                        continue
                    yield network, setting, repair, seed


def run(only: list[str], minutes: float, cache: dict[str, dict], save: Callable[[], None]) -> None:
    """Fills the cache until everything is there or the CPU minutes are spent."""
    benches: dict[str, Bench] = {}
    for network, setting, repair, seed in cells():
        key = f"{network.name} | {setting} | {repair} | {seed}"
        if key in cache or (only and network.name not in only):
            continue
        if time.process_time() > 60 * minutes:
            return
        bench = benches.setdefault(network.name, Bench(network))
        chosen = f"{network.name} | {setting} | rules"
        if chosen not in cache and "min-max" not in repair:
            cache[chosen] = {"rules": bench.best_rules(setting)}
        rules = cache.get(chosen, {"rules": ("minmax", "minmax")})["rules"]
        cache[key] = asdict(bench.cell(setting, repair, seed, tuple(rules)))
        print(key, cache[key], flush=True)
        save()


def table(cache: dict[str, dict]) -> str:
    """The Markdown page."""
    lines = [_PREFACE.format(machine=this_machine(), repair=REPAIR_IMAGES, choice=CHOICE_IMAGES)]
    missing = []
    for network in NETWORKS:
        if not any(key.startswith(f"{network.name} | ") for key in cache):
            missing.append(f"{network.name}: nothing")
            continue
        lines += [f"\n## {network.name}\n",
                  "| setting | repair | SQNR, dB (each seed) | flips | accuracy change, 95 % | CPU s | rules |",
                  "|---|---|---|---|---|---|---|"]
        for setting in SETTINGS:
            for repair in REPAIRS:
                if repair.startswith("AdaRound") and setting != Setting(4, 8):
                    continue
                found = [cache[key] for seed in SEEDS
                         if (key := f"{network.name} | {setting} | {repair} | {seed}") in cache]
                if len(found) < len(SEEDS):
                    missing.append(f"{network.name} {setting} {repair}: {len(found)} of {len(SEEDS)} seeds")
                if found:
                    lines.append(_row(setting, repair, [Cell(**cell) for cell in found]))
    if missing:
        lines += ["\n## Not run\n", *(f"- {item}" for item in missing), *(f"- {item}" for item in _NOT_HERE)]
    return "\n".join(lines) + "\n"


def _row(setting: Setting, repair: str, found: list[Cell]) -> str:
    sqnr = statistics.mean(cell.sqnr for cell in found)
    each = ", ".join(f"{cell.sqnr:.1f}" for cell in found)
    flips = ", ".join(str(cell.flips) for cell in found)
    seconds = statistics.mean(cell.seconds for cell in found)
    intervals = "; ".join(f"{cell.low:+.1f} … {cell.high:+.1f}" for cell in found)
    return (f"| {setting} | {repair} | **{sqnr:.1f}** ({each}) | {flips} of {found[0].images} | {intervals} | "
            f"{seconds:.0f} | {found[0].note} |")


_NOT_HERE = ("MobileNetV1-0.25, MobileNetV2, SqueezeNet, the MLP, ResNet-32 and ResNet-44: not in this benchmark yet",
             "block reconstruction, and every peer (ONNX Runtime, NNCF, AIMET)")
_PREFACE = """# Accuracy without training

Written by `python -m benchmarks.ptq`. Each cell is an integer Program against its float network on the test images,
for three draws of the calibration images (seed 0 is the fixed split): mean logit SQNR, images whose top-1 class
changed, and the exact paired 95 % interval of the accuracy's change in points (one for each seed). Weights symmetric,
activations asymmetric per tensor, restricted scale (max/127), batch norm folded, profile onnxruntime, first and last
layer as all others.

"best range" is the pair of weight and activation rules, out of minmax, mse and minmax, percentile(99.99), mse, kl,
with the highest SQNR on {choice} calibration images of seed 0 when calibrated on {choice} others; the repairs below it
build on it, one upon the other. Bias correction and AdaRound see {repair} calibration images; AdaRound runs 400
iterations a layer. CPU seconds are of quantizing and
repairing, one thread, on a shared machine. The range rules were not chosen on test images. AdaRound's weight λ was
first tried at 0.1, 1 and 10 with test figures in view, then chosen among 1 to 30 by training images outside
calibration, where 10 was best too: take its figures with that in mind.

{machine}
"""


def main() -> None:
    """Runs what is missing, then writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", default=[], help="a network; may be repeated")
    parser.add_argument("--minutes", type=float, default=90, help="CPU minutes after which no new cell is begun")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cache = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    run(given.only, given.minutes, cache, lambda: write_whole(CACHE, json.dumps(cache, indent=1).encode()))
    write_whole(TABLE, table(cache).encode())
    print(f"written: {TABLE}")


if __name__ == "__main__":
    main()

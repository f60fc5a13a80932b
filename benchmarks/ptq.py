"""`python -m benchmarks.ptq`: accuracy after training-free quantization, as a table in docs/ptq.md.

Networks × bit widths × repairs × calibration seeds, and the quantizers of ONNX Runtime and (where it is installed, see
the `benchmark` extra) NNCF on the same batches. Each cell is cached in build/ptq.json under what it depends on
(network, bits, repair and its settings, range rules, seed), so a run that was stopped goes on, and `--only resnet20
--only squeezenet` fills in a part. Everything is measured on integer Programs (peers: as they run) against the float
network, image by image. Choices (the best range rule) are made on calibration images only.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from benchmarks import ptq_nncf
from benchmarks.ptq_peers import PEERS, quantized_by_onnxruntime
from benchmarks.ptq_table import page
from fewbits.api import lower
from fewbits.capture.capture import capture
from fewbits.data.sets import load
from fewbits.data.weights import apply_weights, load_weights
from fewbits.errors import CalibrationError
from fewbits.files import write_whole
from fewbits.fold.fold import fold
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.optimize.bias_correction import correct_biases
from fewbits.optimize.brecq import reconstruct_blocks
from fewbits.optimize.chains import chains
from fewbits.optimize.equalize import equalize
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import Comparison, compare
from fewbits.tasks.registry import TASKS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CACHE = Path("build/ptq.json")
TABLE = Path("docs/ptq.md")
SEEDS = (0, 1, 2)
BATCH = {"cifar10": 64, "images": 16}
Model = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Network:
    """name: of the task; weights, data: below shared/data; calibration, choice, repair: images to calibrate on, to
    choose the range rule by (and as many again to score it), and that repairs see; skip: of its first outputs, classes
    that the labels lack; learned: whether rounding is learned for it too."""

    name: str
    weights: str
    data: str
    calibration: int
    choice: int
    repair: int
    skip: int = 0
    learned: bool = False


NETWORKS = (
    Network("resnet20", "cifar10/resnet20-12fca82f.th", "cifar10:cifar10", 1024, 256, 512, learned=True),
    Network("mobilenet_v1_025", "imagenet/mobilenetv1_025_state_dict.pt", "images:imagenet/nips17_dev200", 64, 32, 64,
            learned=True),
    Network("squeezenet", "imagenet/squeezenet1.1_fp32_from_fp16.npz", "images:imagenet/nips17_dev200", 64, 32, 64),
    Network("mobilenet_v2", "imagenet/mbv2_ptq_dequant.pt", "images:imagenet/nips17_dev200", 64, 32, 64, skip=1),
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
LEARNED_AT, PEERS_AT = Setting(4, 8), Setting(8, 8)
WEIGHT_RULES = ("minmax", "mse")
ACTIVATION_RULES = ("minmax", "percentile(99.99)", "mse", "kl")
PLAIN = ("minmax", "minmax")
SCHEDULE = Schedule()


@dataclass(frozen=True)
class Repair:
    """A row of the table. best: calibrated with the best rules, else min-max; steps: what is done then; revision: of
    what these steps compute, raised when a change of theirs makes older figures wrong."""

    name: str
    best: bool
    steps: tuple[str, ...] = ()
    revision: int = 1


MINMAX, BEST = Repair("min-max", False), Repair("best range", True)
ALL = Repair("+ equalization + bias correction", True, ("equalize", "correct"), 2)
CORRECTED = Repair("min-max + bias correction", False, ("correct",), 2)
BEST_CORRECTED = Repair("best range + bias correction", True, ("correct",), 2)
ADAROUND = Repair("min-max + AdaRound", False, ("adaround",))
BLOCKS = Repair("min-max + AdaRound + block reconstruction", False, ("adaround", "blocks"))
ALL_PEERS = (*PEERS, ptq_nncf.NAME)
REPAIRS = (MINMAX, BEST, ALL, CORRECTED, BEST_CORRECTED, ADAROUND, BLOCKS)


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
        task, (kind, place) = TASKS[network.name], network.data.split(":")
        self.network, self.normalize, self.batch = network, task.normalize, BATCH[kind]
        self.net: nn.Module = task.build()
        apply_weights(self.net, load_weights(SHARED / network.weights), network.weights)
        self.net.eval()
        self.data = load(f"{kind}:{SHARED / place}", task.example_shape)

    @cached_property
    def test(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(self.data.test.batches(min(250, len(self.data.test) // 2), self.normalize))

    @cached_property
    def logits(self) -> list[torch.Tensor]:
        """Of the float network on the test images."""
        with torch.no_grad():
            return [self.net(x) for x, _ in self.test]

    def images(self, seed: int) -> list[torch.Tensor]:
        """The calibration images of a seed. Where no more than the fixed split are there to draw from, another seed
        than 0 takes three quarters of them."""
        split = self.data.draw_calibration(seed)
        count = self.network.calibration
        if seed and len(self.data.train) <= count:
            count = count * 3 // 4
        return list(split.take(count).inputs(self.batch, self.normalize))

    def simulation(self, recipe: Recipe, batches: list[torch.Tensor]) -> Simulation:
        model = fold(capture(self.net, batches[0][:2]))
        return calibrate(model, plan(model, recipe), batches)

    def best_rules(self, setting: Setting) -> tuple[str, str]:
        """The weight and the activation rule of the highest logit SQNR on other calibration images than theirs."""
        images = torch.cat(self.images(0))
        batches, others = (list(part.split(self.batch)) for part in images[:2 * self.network.choice].chunk(2))
        labelled = [(x, torch.zeros(len(x), dtype=torch.int64)) for x in others]  # labels play no part in SQNR
        scored = {}
        for weight_rule in WEIGHT_RULES if setting.weights < 8 else WEIGHT_RULES[:1]:
            for rule in ACTIVATION_RULES:
                with suppress(CalibrationError):  # too few values for the percentile
                    simulation = self.simulation(setting.recipe(weight_rule, rule), batches)
                    scored[weight_rule, rule] = self.compare(self.net, simulation, labelled).sqnr
        return max(scored, key=lambda rules: scored[rules])

    def compare(self, float_model: Model, quantized: Model, batches: list) -> Comparison:
        """As `fewbits.compare`, without the outputs that no label means."""
        skip = self.network.skip
        return compare(lambda x: float_model(x)[:, skip:], lambda x: quantized(x)[:, skip:], batches)

    def cell(self, setting: Setting, repair: Repair, seed: int, rules: tuple[str, str]) -> Cell:
        """Quantizes, repairs, lowers and measures."""
        batches = self.images(seed)
        start = time.process_time()
        simulation = self.simulation(setting.recipe(*rules), batches)
        some = batches[:self.network.repair // self.batch]
        notes = [f"weights {rules[0]}, activations {rules[1]}"] if repair.best else []
        for step in repair.steps:
            if step == "equalize" and not chains(simulation.model):
                notes.append("no chain to equalize")
                continue
            simulation = _STEPS[step](simulation, batches if step == "equalize" else some)
        seconds = time.process_time() - start
        return self.measured(lower(simulation), seconds, "; ".join(notes))

    def peer(self, name: str, seed: int) -> Cell:
        """ONNX Runtime's quantizer or NNCF's, W8A8 per channel."""
        batches = self.images(seed)
        start = time.process_time()
        if name == ptq_nncf.NAME:
            model = ptq_nncf.quantized_by_nncf(self.net, batches)
        else:
            model = quantized_by_onnxruntime(self.net, batches, name)
        return self.measured(model, time.process_time() - start, "")

    def measured(self, quantized: Model, seconds: float, note: str) -> Cell:
        known = iter(self.logits)
        found = self.compare(lambda x: next(known), quantized, self.test)
        low, high = found.interval
        return Cell(found.sqnr, found.flips, len(self.data.test), 100 * low, 100 * high, seconds, note)


_STEPS: dict[str, Callable[[Simulation, list[torch.Tensor]], Simulation]] = {
    "equalize": partial(equalize, even_if_worse=True),
    "correct": partial(correct_biases, even_if_worse=True),
    "adaround": partial(adaround, schedule=SCHEDULE, even_if_worse=True),
    "blocks": partial(reconstruct_blocks, schedule=SCHEDULE, even_if_worse=True),
}


def rows(network: Network) -> Iterator[tuple[Setting, str]]:
    """Every row of a network's table: its setting, and the name of the repair or peer."""
    for setting in SETTINGS:
        learned = network.learned and setting == LEARNED_AT
        somewhere = {BEST_CORRECTED: setting == PEERS_AT, ADAROUND: learned, BLOCKS: learned}
        yield from ((setting, repair.name) for repair in REPAIRS if somewhere.get(repair, True))
        if setting == PEERS_AT:
            yield from ((setting, peer) for peer in ALL_PEERS)


def cells() -> Iterator[tuple[Network, Setting, str, int]]:
    """Every cell in the order of importance: what the table must show for one seed first, what is dear last."""
    every = [(network, setting, name, seed) for seed in SEEDS for network in NETWORKS
             for setting, name in rows(network)]
    late = (CORRECTED.name, BEST_CORRECTED.name, ADAROUND.name, BLOCKS.name, *ALL_PEERS)
    return iter(sorted(every, key=lambda cell: (cell[3], cell[2] in late)))


def run(only: list[str], minutes: float, cache: dict[str, dict], save: Callable[[], None]) -> None:
    """Fills the cache until everything is there or the CPU minutes are spent."""
    benches: dict[str, Bench] = {}
    for network, setting, name, seed in cells():
        if (only and network.name not in only) or (name == ptq_nncf.NAME and not ptq_nncf.is_installed()):
            continue
        if time.process_time() > 60 * minutes:
            return
        repair = next((repair for repair in REPAIRS if repair.name == name), None)
        rules = PLAIN
        if repair and repair.best:
            chosen = f"{network} | {setting} | {WEIGHT_RULES} {ACTIVATION_RULES}"
            if chosen not in cache:
                bench = benches.setdefault(network.name, Bench(network))
                cache[chosen] = {"rules": bench.best_rules(setting)}
            rules = tuple(cache[chosen]["rules"])
        key = key_of(network, setting, name, seed, rules)
        if key in cache:
            continue
        bench = benches.setdefault(network.name, Bench(network))
        cell = bench.cell(setting, repair, seed, rules) if repair else bench.peer(name, seed)
        cache[key] = asdict(cell) | {"row": [network.name, str(setting), name, seed]}
        print(network.name, setting, name, seed, cell, f"{time.process_time():.0f} s", flush=True)
        save()


def key_of(network: Network, setting: Setting, name: str, seed: int, rules: tuple[str, ...]) -> str:
    """All that a cell depends on, but for the code that every cell shares."""
    repair = next((repair for repair in REPAIRS if repair.name == name), name)
    learned = isinstance(repair, Repair) and {"adaround", "blocks"} & set(repair.steps)
    return f"{network} | {setting} | {repair} | {seed} | {rules}" + (f" | {SCHEDULE}" if learned else "")


def main() -> None:
    """Runs what is missing, then writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", default=[], help="a network; may be repeated")
    parser.add_argument("--minutes", type=float, default=90, help="CPU minutes after which no new cell is begun")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cache = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    run(given.only, given.minutes, cache, lambda: write_whole(CACHE, json.dumps(cache, indent=1).encode()))
    wanted = [(network.name, str(setting), name) for network in NETWORKS for setting, name in rows(network)]
    write_whole(TABLE, page(wanted, SEEDS, cache, ALL_PEERS).encode())
    print(f"written: {TABLE}")


if __name__ == "__main__":
    main()

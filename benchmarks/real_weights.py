"""`python -m benchmarks.real_weights`: trained networks in few bits, on real data, as a table in docs/real-weights.md.

Networks × recipes. Photographs calibrate on rows 0-63 of the labels and test on 64-199; texts calibrate on windows the
test leaves out. What lowers is measured as the integer Program, everything else as the Simulation, and the table says
which. Each cell is cached in build/real-weights.json, so `--network` and `--recipe` fill in a part.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.api import lower
from fewbits.capture.capture import capture
from fewbits.data.language import Sequences, character_windows, negative_log_likelihood
from fewbits.data.readers import read_npz
from fewbits.data.sets import load
from fewbits.data.weights import apply_weights, load_weights
from fewbits.errors import LoweringError
from fewbits.files import write_whole
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.presets import presets
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare
from fewbits.report.ledger import ledger
from fewbits.report.machine import this_machine
from fewbits.tasks.registry import TASKS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CACHE = Path("build/real-weights.json")
TABLE = Path("docs/real-weights.md")
RECIPES = ("w8a8", "w8", "dynamic-w8a8")
PHOTOGRAPHS = (("mobilenet_v1_025", "imagenet/mobilenetv1_025_state_dict.pt"),
               ("squeezenet", "imagenet/squeezenet1.1_fp32_from_fp16.npz"),
               ("mobilenet_v2", "imagenet/mbv2_ptq_dequant.pt"))
TEXTS = ("char_gpt", "stories260k")
WINDOW, BATCH, CALIBRATION = 128, 16, 64  # tokens a window, windows a batch, windows that calibrate
GPT_WEIGHTS = "lm/chargpt_4x128_inhouse.pt"


@dataclass(frozen=True)
class Cell:
    """One measurement. form: `Program` or `Simulation`; islands: operators that compute in float; score, float_score:
    top-1 accuracy, or nats a token; sqnr: in dB, flips: of top-1 (None for texts); samples: images or tokens."""

    form: str
    islands: int
    operators: int
    float_score: float
    score: float
    sqnr: float | None
    flips: int | None
    samples: int
    seconds: float


@dataclass(frozen=True)
class Subject:
    """A trained network, the batches that calibrate it, and how a quantized one is measured beside it."""

    net: nn.Module
    calibration: Any
    measure: Callable[[Any], dict[str, Any]]


def photographs(name: str, weights: str) -> Subject:
    """A network for ImageNet on the shared photographs."""
    task = TASKS[name]
    net = _loaded(name, weights)
    data = load(f"images:{SHARED / 'imagenet/nips17_dev200'}", task.example_shape).relabelled(task.label_offset)
    test = data.test.batches(8, task.normalize)

    def measure(quantized: Any) -> dict[str, Any]:
        found = compare(net, quantized, test)
        return {"float_score": found.float_accuracy.mean, "score": found.accuracy.mean, "sqnr": found.sqnr,
                "flips": found.flips, "samples": found.samples}

    return Subject(net, data.calibration.inputs(8, task.normalize), measure)


def characters() -> Subject:
    """The character GPT on the last tenth of its text; the first windows of the text calibrate."""
    known = torch.load(SHARED / GPT_WEIGHTS, weights_only=True)["chars"]
    text = (SHARED / "lm/tinyshakespeare.txt").read_text()
    first = text[:CALIBRATION * (WINDOW + 1)]
    calibration = [tokens for tokens, _ in character_windows(first, known, WINDOW, BATCH)]
    test = list(character_windows(text[int(len(text) * 0.9):], known, WINDOW, BATCH))
    return _text("char_gpt", GPT_WEIGHTS, calibration, test)


def stories() -> Subject:
    """stories260K on the first 128 predictions of each story that is so long; the first of these calibrate."""
    held = read_npz(SHARED / "lm/tinystories_dev_tok512.npz")
    tokens, offsets = torch.from_numpy(held["tokens"]).long(), held["offsets"].tolist()
    long_enough = [start for start, end in pairwise(offsets) if end - start > WINDOW]
    windows = torch.stack([tokens[start:start + WINDOW + 1] for start in long_enough])
    calibration = [rows[:, :-1] for rows in windows[:CALIBRATION].split(BATCH)]
    test = [(rows[:, :-1], rows[:, 1:]) for rows in windows[CALIBRATION:].split(BATCH)]
    return _text("stories260k", "lm/stories260K.bin", calibration, test)


def _text(name: str, weights: str, calibration: list[Tensor], test: Sequences) -> Subject:
    net = _loaded(name, weights)
    tokens = sum(following.numel() for _, following in test)

    def measure(quantized: Any) -> dict[str, Any]:
        (before, _), (after, _) = (negative_log_likelihood(model, test) for model in (net, quantized))
        return {"float_score": before, "score": after, "sqnr": None, "flips": None, "samples": tokens}

    return Subject(net, calibration, measure)


def _loaded(name: str, weights: str) -> nn.Module:
    net = TASKS[name].build().eval()
    apply_weights(net, load_weights(SHARED / weights), weights)
    return net


SUBJECTS: dict[str, Callable[[], Subject]] = {
    **{name: partial(photographs, name, weights) for name, weights in PHOTOGRAPHS},
    "char_gpt": characters, "stories260k": stories}


def cell(subject: Subject, recipe: str) -> Cell:
    """Quantizes by a recipe and measures."""
    start = time.process_time()
    model = fold(capture(subject.net, next(iter(subject.calibration))[:2]))
    simulation = calibrate(model, plan(model, recipe), subject.calibration)
    seconds = time.process_time() - start
    try:
        program = lower(simulation)
    except LoweringError:
        return Cell("Simulation", _in_float(simulation), len(simulation.plan.steps),
                    **subject.measure(simulation), seconds=seconds)
    told = ledger(program.program, simulation.plan, simulation.model.graph)
    return Cell("Program", told.floating, len(simulation.plan.steps), **subject.measure(program), seconds=seconds)


def _in_float(simulation: Simulation) -> int:
    """Operators that compute with float numbers in the simulation."""
    return sum(step.treatment == "float" for step in simulation.plan.steps.values())


def table(cells: dict[str, Cell]) -> str:
    """The Markdown page."""
    lines = [_PREFACE.format(machine=this_machine(), window=WINDOW, calibration=CALIBRATION),
             "## Photographs\n",
             "| network | recipe | runs as | float islands | SQNR of logits, dB | flips | top-1, float → quantized |",
             "|---|---|---|---|---|---|---|"]
    for name, recipe, found in _found(cells, tuple(name for name, _ in PHOTOGRAPHS)):
        lines.append(f"| {name} | {recipe} | {found.form} | {found.islands} of {found.operators} | {found.sqnr:.1f} | "
                     f"{found.flips} of {found.samples} | {100 * found.float_score:.1f} → {100 * found.score:.1f} % |")
    lines += ["\n## Texts\n",
              "| network | recipe | runs as | float islands | nats a token, float | quantized less float | tokens |",
              "|---|---|---|---|---|---|---|"]
    for name, recipe, found in _found(cells, TEXTS):
        lines.append(f"| {name} | {recipe} | {found.form} | {found.islands} of {found.operators} | "
                     f"{found.float_score:.4f} | {found.score - found.float_score:+.4f} | {found.samples} |")
    return "\n".join(lines) + "\n"


def _found(cells: dict[str, Cell], names: tuple[str, ...]) -> list[tuple[str, str, Cell]]:
    recipes = dict.fromkeys([*RECIPES, *(key.split(" | ")[1] for key in cells)])
    keys = ((name, recipe, f"{name} | {recipe}") for name in names for recipe in recipes)
    return [(name, recipe, cells[key]) for name, recipe, key in keys if key in cells]


_PREFACE = """# Real weights

Written by `python -m benchmarks.real_weights`. Trained networks, their own kind of data, and what a recipe does to them
without any repair: the mean logit SQNR over the test images and the images whose top-1 class changed, or the change of
the mean negative log-likelihood. "Runs as" says what was measured: the integer Program (profile onnxruntime), or the
float Simulation where the recipe leaves numbers in float that a program has no node for. Float islands are the
operators whose results are float numbers, by the ledger, or by the plan for a Simulation.

Photographs: 64 calibrate, 136 others test, top-1 flips are out of these. Texts: windows of {window} tokens,
{calibration} of which calibrate; the character GPT is tested on the last tenth of tinyshakespeare, stories260K on the
other stories of more than {window} tokens, their first {window} predictions each. The weights of mobilenet_v2 come from
a post-training file, dequantized: they are 8-bit numbers already, so its losses are those of activations.

{machine}
"""


def main() -> None:
    """Measures what is asked for and not there, then writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", action="append", choices=[*SUBJECTS], help="only this one; may be repeated")
    parser.add_argument("--recipe", action="append", help=f"in place of {', '.join(RECIPES)}; may be repeated")
    parser.add_argument("--again", action="store_true", help="measure also what is cached")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipes = given.recipe or [name for name in RECIPES if name in presets()]
    cache: dict[str, Any] = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    for name in given.network or SUBJECTS:
        missing = [recipe for recipe in recipes if given.again or f"{name} | {recipe}" not in cache]
        subject = SUBJECTS[name]() if missing else None
        for recipe in missing:
            assert subject is not None
            cache[f"{name} | {recipe}"] = asdict(cell(subject, recipe))
            print(f"{name} | {recipe}", cache[f"{name} | {recipe}"], flush=True)
            write_whole(CACHE, json.dumps(cache, indent=1).encode())
    write_whole(TABLE, table({key: Cell(**value) for key, value in cache.items()}).encode())
    print(f"written: {TABLE}")


if __name__ == "__main__":
    main()

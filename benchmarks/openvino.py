"""`python -m benchmarks.openvino`: the exported ONNX in OpenVINO, its differences counted; needs `fewbits[openvino]`.

Trained networks, and random ones of every operator, in both ONNX forms, under each setting of `OpenVinoSession`: how
many outputs are not the reference's bit for bit, how many are a step of their grid away or more (half a step of the
sums behind logits), by how many at most, and how many images change their class. Of random networks also where
differences begin: nodes, by kind, that read what is right and write what is not, in a copy that returns every value.
docs/openvino.md says what came of it.
"""

import argparse
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from fewbits.api import quantize
from fewbits.data.sets import load
from fewbits.data.weights import apply_weights, load_weights
from fewbits.engines.openvino_session import OpenVinoSession, Setting
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.errors import DataError, UnsupportedError
from fewbits.program import reference
from fewbits.program.ops import reads
from fewbits.program.program import Program
from fewbits.progress import track
from fewbits.report.machine import this_machine
from fewbits.tasks.registry import TASKS
from fewbits.tasks.training import initialised, train
from fewbits.testing import random_program
from fewbits.writers.onnx.program import OnnxForm, onnx_bytes, output_name

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SETTINGS: tuple[Setting, ...] = get_args(Setting)
FORMS: tuple[OnnxForm, ...] = get_args(OnnxForm)
Inputs = dict[str, np.ndarray]


@dataclass
class Count:
    """Numbers compared; `bits`: not equal bit for bit; `steps`: a step or more away, `largest` of these; `flips`: rows
    of a two-axis output whose largest number is another one, of `rows`."""

    networks: int = 0
    compared: int = 0
    bits: int = 0
    steps: int = 0
    largest: float = 0.0
    flips: int = 0
    rows: int = 0

    def add(self, program: Program, name: str, wanted: np.ndarray, actual: np.ndarray) -> None:
        """An output as the reference and as OpenVINO give it, in real numbers."""
        self.compared += wanted.size
        self.bits += int(np.count_nonzero(wanted != actual))
        if program.values[name].encoding is not None:
            steps = np.rint(program.steps_between(name, wanted, actual))
            self.steps += int(np.count_nonzero(steps))
            self.largest = max(self.largest, float(steps.max(initial=0)))
        if wanted.ndim == 2:
            self.rows += len(wanted)
            self.flips += int(np.count_nonzero(wanted.argmax(1) != actual.argmax(1)))

    def __str__(self) -> str:
        return (f"{self.networks} | {self.compared} | {self.bits} | {self.steps} | {self.largest:.0f} | "
                f"{self.flips} of {self.rows}")


@dataclass
class Counts:
    """By form and setting; what it could not read, by form; where differences begin, by form and setting."""

    results: dict[tuple[str, str], Count] = field(default_factory=dict)
    unread: Counter[tuple[str, str]] = field(default_factory=Counter)
    begins: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    def compare(self, program: Program, batches: Iterable[Inputs], every_value: bool) -> None:
        """One program in both forms and all settings."""
        executor, given = TorchExecutor(program), list(batches)
        known = [executor.run(batch) for batch in given]
        for form in FORMS:
            try:
                sessions: list[tuple[Setting, OpenVinoSession]] = [
                    (setting, OpenVinoSession(onnx_bytes(program, form), setting)) for setting in SETTINGS]
            except UnsupportedError as error:
                self.unread[form, str(error)] += 1
                continue
            for setting, session in sessions:
                count = self.results.setdefault((form, setting), Count())
                count.networks += 1
                for batch, codes in zip(given, known, strict=True):
                    actual = session.run(batch)
                    for name in program.outputs:
                        count.add(program, name, program.real(name, codes[name]), actual[output_name(name)])
                if every_value:
                    found = self.begins.setdefault((form, setting), Counter())
                    found.update(beginnings(program, given[0], form, setting))


def beginnings(program: Program, given: Inputs, form: OnnxForm, setting: Setting) -> Iterator[str]:
    """Kinds of the nodes at which differences begin."""
    actual = OpenVinoSession(onnx_bytes(program, form, every_code=True), setting).run(given)
    known = given | reference.run(program, given, tuple(node.name for node in program.nodes))
    wrong: set[str] = set()
    for node in program.nodes:
        if any(name in wrong for name in reads(node)):
            wrong.add(node.name)
        elif node.name in actual and not np.array_equal(known[node.name], actual[node.name]):
            wrong.add(node.name)
            yield type(node).__name__


def trained(name: str, data: str, weights: str | None, images: int) -> tuple[Program, list[Inputs]]:
    """A network's program, and test images by a hundred. Without weights it is trained, as `make demo` does."""
    task, given = TASKS[name], load(data)
    net = initialised(task.build, seed=0)
    if weights is None:
        train(net, given.train, epochs=15, normalize=task.normalize, quiet=True)
    else:
        apply_weights(net, load_weights(SHARED / weights), weights)
    calibration = given.calibration.inputs(64, task.normalize)
    program = quantize(net.eval(), next(iter(calibration))[:2], calibration).program
    test = [batch.numpy() for batch in given.test.inputs(100, task.normalize)][:images // 100]
    return program, [{program.inputs[0]: batch} for batch in test]


NETWORKS: dict[str, Callable[[], tuple[Program, list[Inputs]]]] = {
    "digits_net": lambda: trained("digits_net", "digits", None, 800),
    "digits_transformer": lambda: trained("digits_transformer", "digits", None, 800),
    "lenet5": lambda: trained("lenet5", f"mnist:{SHARED / 'mnist'}", "mnist/lenet5_inhouse.pt", 1000),
    "resnet20": lambda: trained("resnet20", f"cifar10:{SHARED / 'cifar10'}", "cifar10/resnet20-12fca82f.th", 500),
}


def show(name: str, counts: Counts) -> None:
    """Rows of the table, and what stands under it."""
    for (form, setting), count in counts.results.items():
        print(f"| {name} | {form} | {setting} | {count} |", flush=True)
    for (form, reason), times in counts.unread.most_common():
        print(f"  {times} not read, {form}: {reason}")
    for (form, setting), kinds in counts.begins.items():
        told = ", ".join(f"{kind} {times}" for kind, times in kinds.most_common())
        print(f"  differences begin ({form}, {setting}) at: {told or 'nothing'}")


def main() -> None:
    """Prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", action="append", choices=[*NETWORKS, "random"], help="only this one; repeatable")
    parser.add_argument("--count", type=int, default=100, help="random networks")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Using padding='same'")
    print(f"{this_machine()}\n\n| network | form | setting | programs | numbers | bits differ | a step or more | "
          "largest | classes change |\n|---|---|---|---|---|---|---|---|---|")
    for name in given.network or [*NETWORKS, "random"]:
        counts = Counts()
        try:
            if name == "random":
                for seed in track(range(given.first, given.first + given.count), "networks"):
                    made = random_program(seed)
                    counts.compare(made.program, [made.inputs], every_value=True)
            else:
                program, batches = NETWORKS[name]()
                counts.compare(program, batches, every_value=False)
        except DataError as error:
            print(f"{name} is left out: {error}")
        show(name, counts)


if __name__ == "__main__":
    main()

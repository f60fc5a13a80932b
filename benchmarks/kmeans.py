"""Values shared by a layer, 4 to 2 bits, on real trained networks, before and after fine-tuning, as integer Programs.

    python -m benchmarks.kmeans --network lenet5 --weights FILE --data mnist:DIR
    python -m benchmarks.kmeans --network resnet20 --weights FILE --data cifar10:DIR --rate 1e-3

Prints a table in Markdown. Every layer has one codebook of 2^bits values (optimal k-means of its weights), activations
8 bits; batch norm stays live while it learns. `summed`: the values learn by the sum of their members' gradients;
`refresh`: the weights learn and each value becomes their mean. Both with Adam, its rate falling along a cosine. Figures
are of the Program on the test images, against the float network; every engine here is compared code by code.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from fewbits.api import QuantizedModel, lower
from fewbits.artifact.into_network import read_weights
from fewbits.capture.capture import capture
from fewbits.data.sets import load
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare, evaluate
from fewbits.report.engines import agreement
from fewbits.tasks.registry import resolve
from fewbits.train.after_training import calibrate_activations
from fewbits.train.fit import Adam, fit
from fewbits.train.registry import trainable

BITS = (4, 3, 2)
METHODS = {"summed": "codebook", "refresh": "codebook-refresh"}


def recipe(bits: int, method: str) -> Recipe:
    """One codebook a layer, 8-bit activations whose ranges are found when training is over."""
    return Recipe.model_validate({
        "version": 1, "weights": {"format": "int8", "block": "tensor", "method": f"{METHODS[method]}({2**bits})"},
        "activations": {"format": "uint8", "symmetric": False, "block": "tensor", "method": "after-training"}})


class Study:
    """A network and its data, and what is made of them."""

    def __init__(self, arguments: argparse.Namespace):
        self.task, self.data, self.arguments = resolve(arguments.network), load(arguments.data), arguments
        self.net = self.task.build()
        read_weights(self.net, arguments.weights)
        self.net.eval()
        self.calibration = list(self.data.calibration.inputs(64, self.task.normalize))
        self.test = self.data.test.batches(250, self.task.normalize)

    def simulation(self, bits: int, method: str) -> Simulation:
        """Before any training."""
        model = fold(capture(self.net, self.calibration[0][:2]), "keep")
        return trainable(calibrate(model, plan(model, recipe(bits, method)), self.calibration))

    def program(self, simulation: Simulation) -> QuantizedModel:
        """The integers of a simulation."""
        return lower(calibrate_activations(simulation, self.calibration))

    def rows(self) -> Iterator[tuple[int, str, QuantizedModel, float]]:
        """(bits, what, program, CPU seconds of training)"""
        learning = self.data.train.take(min(self.arguments.images, len(self.data.train)))
        for bits in self.arguments.bits:
            yield bits, "before", self.program(self.simulation(bits, "summed")), 0.0
            for method in METHODS:
                simulation, start = self.simulation(bits, method), time.process_time()
                batches = learning.batches(64, self.task.normalize, torch.Generator().manual_seed(0))
                fit(simulation, batches, epochs=self.arguments.epochs, optimizer=Adam(self.arguments.rate), quiet=True)
                yield bits, method, self.program(simulation), time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    parser.add_argument("--images", type=int, default=10_000, help="the first of training, seen in each epoch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=3e-4)
    arguments = parser.parse_args()
    study = Study(arguments)
    accuracy = 100 * evaluate(study.net, study.test).mean
    print(f"{arguments.network}: float {accuracy:.2f} % of {len(study.data.test)} test "
          f"images; {arguments.epochs} epochs of {arguments.images} images, rate {arguments.rate:g}\n")
    print("| bits | fine-tuning | accuracy, % | change, points, 95 % | SQNR, dB | codes compared, differing | CPU s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for bits, what, program, seconds in study.rows():
        found = compare(study.net, program, study.test)
        low, high = found.interval
        engines = [one for one in agreement(program.program, study.calibration[:1], every_value=True) if one.exact]
        compared, differing = (sum(getattr(one, field) for one in engines) for field in ("compared", "differing"))
        print(f"| {bits} | {what} | {100 * found.accuracy.mean:.2f} | {100 * low:+.2f} … {100 * high:+.2f} | "
              f"{found.sqnr:.1f} | {compared}, {differing} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()

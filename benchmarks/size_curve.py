"""Error against size: pruned only, shared only, and both; and what pruning one layer alone does.

    python -m benchmarks.size_curve --network lenet5 --weights FILE --data mnist:DIR

Prints tables in Markdown. Sizes are of whole files. Pruned networks are retrained, shared ones have their codebooks
tuned. Errors are in % of the test images; nothing is chosen by them.
"""

import argparse
import copy
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.density_sensitivity import sensitivity
from fewbits.artifact.into_network import read_weights
from fewbits.artifact.weights import WeightsFile, weights_bytes
from fewbits.compress.flow import Progress, Settings, prunable, prune_and_retrain, share_layers, tune_codebooks
from fewbits.compress.share import Shared
from fewbits.data.sets import load
from fewbits.report.accuracy import evaluate
from fewbits.tasks.registry import resolve

DENSITIES = (0.4, 0.2, 0.1, 0.05, 0.03)
ALONE = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
BITS = (8, 5, 4, 3, 2, 1)


class Study:
    """A trained network and its data."""

    def __init__(self, network: str, weights: Path, data: str, images: int, epochs: int):
        self.task, self.data, self.epochs_each = resolve(network), load(data), epochs
        self.net = self.task.build()
        read_weights(self.net, weights)
        self.learning = self.data.train.take(min(images, len(self.data.train)))

    def epochs(self, number: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Batches of 64 in another order each time."""
        return self.learning.batches(64, self.task.normalize, torch.Generator().manual_seed(number))

    def error(self, net: nn.Module) -> float:
        """In % of the test images."""
        return 100 * (1 - evaluate(net.eval(), self.data.test.batches(500, self.task.normalize)).mean)

    def settings(self, density: float, bits: int) -> Settings:
        """One density, but its root for the first and the last layer; 2^bits values."""
        names = prunable(self.net)
        ends = (names[0], names[-1])
        return Settings({name: density ** (0.5 if name in ends else 1) for name in names},
                        dict.fromkeys(names, 1 << bits), prune_epochs=self.epochs_each, tune_epochs=1)

    def pruned(self, density: float) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """A copy, retrained, and its masks; all of it where the density is 1."""
        net, settings = copy.deepcopy(self.net), self.settings(density, 8)
        if density < 1:
            return net, prune_and_retrain(net, self.epochs, settings, Progress()).masks
        return net, {name: torch.ones_like(dict(net.named_parameters())[name], dtype=torch.bool)
                     for name in settings.density}

    def shared(self, net: nn.Module, masks: Mapping[str, Tensor], density: float, bits: int) -> tuple[float, float]:
        """(times smaller, error) of a copy with shared weights."""
        net, settings = copy.deepcopy(net), self.settings(density, bits)
        shared = tune_codebooks(net, share_layers(net, settings, masks), self.epochs, settings)
        return self.stored(net, shared)

    def stored(self, net: nn.Module, shared: Mapping[str, Shared]) -> tuple[float, float]:
        """(times smaller, error) of what the file holds."""
        state = net.state_dict()
        file = WeightsFile.of_bytes(weights_bytes(state, shared, "the study"))
        net.load_state_dict(file.state_dict())
        return sum(4 * tensor.numel() for tensor in state.values()) / file.size, self.error(net)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=20_000, help="the first of training, seen in each epoch")
    parser.add_argument("--epochs", type=int, default=4, help="of pruning and retraining")
    arguments = parser.parse_args()
    study = Study(arguments.network, arguments.weights, arguments.data, arguments.images, arguments.epochs)
    ratio, error = study.stored(copy.deepcopy(study.net), {})
    print(f"{arguments.network}: float {error:.2f} %; the file without loss {ratio:.2f}x smaller\n")
    print("| density | pruned only | " + " | ".join(f"{bits} bits" for bits in BITS) + " |")
    print("|---" * (len(BITS) + 2) + "|")
    for density in (1.0, *DENSITIES):
        net, masks = study.pruned(density)
        cells = [study.stored(copy.deepcopy(net), {}) if density < 1 else (ratio, error)]
        cells += [study.shared(net, masks, density, bits) for bits in BITS]
        told = " | ".join(f"{times:.1f}x {wrong:.2f}" for times, wrong in cells)
        print(f"| {density:g} | {told} |", flush=True)
    print("\n| layer pruned alone | " + " | ".join(f"{density:g}" for density in ALONE) + " |")
    print("|---" * (len(ALONE) + 1) + "|")
    for name, errors in sensitivity(study.net, ALONE, study.error).items():
        print(f"| {name} | " + " | ".join(f"{error:.2f}" for error in errors) + " |", flush=True)


if __name__ == "__main__":
    main()

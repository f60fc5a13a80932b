"""`python -m benchmarks.calibration`: what calibration costs beside the float forward pass, and beside ONNX Runtime's.

A network of ResNet-18's size with random weights, 128 random images of 224 × 224 in batches of 8, one thread: CPU
seconds and added memory (peak of the process less that before). Each measurement runs in a process of its own. The bar:
entropy calibration in at most 1.5 times the float forward time and under 200 MB of added memory.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from benchmarks.ptq_peers import PEERS, quantize_to
from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.machine import this_machine

IMAGES, BATCH, SIZE = 128, 8, 224
RULES = ("minmax", "percentile(99.99)", "mse", "kl")


class Batches:
    """Random images, made anew in each pass so that they take no memory of their own."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(IMAGES // BATCH):
            yield torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
                                   nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def network() -> nn.Module:
    """ResNet-18's layers, weights random, its batch norms' statistics those of one batch."""
    torch.manual_seed(0)
    sizes = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2),
             (512, 512, 1))
    net = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
                        *(_Block(*size) for size in sizes), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net(next(iter(Batches())))
    return net.eval()


def measure(what: str) -> tuple[float, float]:
    """(CPU seconds, MB of added memory). what: `forward`, a range rule, or a peer's name."""
    torch.set_num_threads(1)
    net, batches = network(), Batches()
    with torch.no_grad():
        net(next(iter(batches)))
    jobs: dict[str, Callable[[], object]] = {"forward": lambda: _forward(net, batches)}
    for rule in RULES:
        recipe = Recipe.model_validate({
            "version": 1, "weights": {"format": "int8", "symmetric": True, "block": "channel"},
            "activations": {"format": "uint8", "symmetric": False, "block": "tensor", "range": rule}})
        model = fold(capture(net, next(iter(batches))[:2]))
        jobs[rule] = lambda model=model, recipe=recipe: calibrate(model, plan(model, recipe), batches)
    with tempfile.TemporaryDirectory() as folder:
        for name, method in PEERS.items():
            jobs[name] = lambda method=method: quantize_to(Path(folder), net, batches, method)
        before, start = _peak(), time.process_time()
        jobs[what]()
        return time.process_time() - start, _peak() - before


def _forward(net: nn.Module, batches: Batches) -> None:
    with torch.no_grad():
        for batch in batches:
            net(batch)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--one", help="measure only this, and print both numbers")
    parser.add_argument("--without-peers", action="store_true")
    given = parser.parse_args()
    if given.one:
        print(*measure(given.one))
        return
    found: dict[str, tuple[float, ...]] = {}
    for what in ("forward", *RULES, *(() if given.without_peers else PEERS)):
        done = subprocess.run([sys.executable, "-m", "benchmarks.calibration", "--one", what], check=True,
                              capture_output=True, text=True)
        found[what] = tuple(float(word) for word in done.stdout.splitlines()[-1].split())
    print("| | CPU s | times the forward pass | MB added |\n|---|---|---|---|")
    for what, (seconds, added) in found.items():
        print(f"| {what} | {seconds:.1f} | {seconds / found['forward'][0]:.2f} | {added:.0f} |")
    print(f"\n{this_machine()}")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.few_bit_networks`: networks of few bits through the native engine beside their 8-bit selves.

One thread, batch 1; both run in turns in one process, medians of thread CPU time. Weights are as initialised: they do
not change the time. Codes are compared with the torch executor's first.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.native_kernels import medians
from fewbits.capture.capture import capture
from fewbits.engines.native.executor import NativeExecutor
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.fold.fold import fold
from fewbits.kernels import library
from fewbits.lower.lower import lower
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.report.machine import this_machine
from fewbits.tasks.few_bit_nets import lenet_norm, lenet_tanh, mlp_tanh
from fewbits.tasks.resnet_cifar import resnet20
from fewbits.tasks.training import initialised
from fewbits.tasks.vgg_cifar import vgg_small
from fewbits.train.after_training import calibrate_activations
from fewbits.train.registry import trainable


def vgg_tanh() -> nn.Module:
    """VGG-small with hard tanh, for networks of signs."""
    return nn.Sequential(*(nn.Hardtanh() if isinstance(layer, nn.ReLU) else layer for layer in vgg_small()))


MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
ROWS: tuple[tuple[str, Callable[[], nn.Module], tuple[int, ...], str], ...] = (
    ("binary LeNet", lenet_tanh, MNIST, "xnor"), ("LeNet", lenet_norm, MNIST, "dorefa-w1a2"),
    ("binary MLP", mlp_tanh, MNIST, "bnn"), ("binary VGG-small", vgg_tanh, CIFAR, "bnn"),
    ("VGG-small", vgg_small, CIFAR, "dorefa-w1a2"), ("VGG-small", vgg_small, CIFAR, "lsq-w2a2"),
    ("ternary VGG-small", vgg_small, CIFAR, "twn"), ("k-means ResNet-20", resnet20, CIFAR, "kmeans-w4a8"))


def program(build: Callable[[], nn.Module], shape: tuple[int, ...], recipe: str) -> tuple[Program, torch.Tensor]:
    """Its integers, and one input."""
    net, x = initialised(build, seed=0), torch.randn(16, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for _ in range(3):
            net.train()(x)
    if recipe == "w8a8":
        model = fold(capture(net.eval(), x))
        return lower(calibrate(model, plan(model, recipe), [x])), x[:1]
    model = fold(capture(net.eval(), x), norms="keep")
    learning = trainable(calibrate(model, plan(model, recipe), [x]))
    learning.train()(x)
    learning.eval()
    return lower(calibrate_activations(learning, [x])), x[:1]


def main(repeats: Annotated[int, typer.Option(help="of each candidate")] = 25) -> None:
    """Prints a table: one row a network, and how many times faster than in 8 bits at each level."""
    levels = library.levels()[2:]
    table = Table("network", "recipe", *levels, title="times its 8-bit self (µs, µs in 8 bits)")
    for name, build, shape, recipe in ROWS:
        few, x = program(build, shape, recipe)
        whole, _ = program(build, shape, "w8a8")
        cells = []
        for level in levels:
            with library.use(level):
                engines = [(NativeExecutor(each), {each.inputs[0]: x.numpy()}) for each in (few, whole)]
                for (engine, inputs), each in zip(engines, (few, whole), strict=True):
                    for key, codes in TorchExecutor(each).run(inputs).items():
                        assert np.array_equal(codes, engine.run(inputs)[key]), f"{name}, {recipe}, {key} at {level}"
                own, eight = medians([lambda e=e, i=i: e.run(i) for e, i in engines], repeats)
            cells.append(f"{eight / own:.2f} ({own:.0f}, {eight:.0f})")
        table.add_row(name, recipe, *cells)
    console = Console(width=130)
    console.print(table)
    console.print(str(this_machine()), highlight=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)

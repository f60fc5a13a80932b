"""`python -m benchmarks.training`: a training step with 8-bit fake quantization beside the float step.

The bar: at most twice the float step on the same network. Both take turns, step by step; medians of both.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.graph.capture import capture
from fewbits.graph.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import plan
from fewbits.report.machine import this_machine
from fewbits.tasks.few_bit_nets import lenet_norm, mlp_norm
from fewbits.tasks.resnet_cifar import resnet20
from fewbits.tasks.training import initialised
from fewbits.train.fit import Adam
from fewbits.train.registry import trainable

_NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LeNet 20-50-500-10": (lenet_norm, (100, 1, 28, 28)), "784-1024-1024-1024-10": (mlp_norm, (100, 1, 28, 28)),
    "ResNet-20": (resnet20, (32, 3, 32, 32))}


def main() -> None:
    """Prints milliseconds of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="qat-w8a8")
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    for name, (build, shape) in _NETWORKS.items():
        x, y = torch.randn(*shape), torch.arange(shape[0]) % 10
        net = initialised(build, 0)
        model = fold(capture(net.eval(), x[:2]), norms="keep")
        learning = trainable(calibrate(model, plan(model, options.recipe), [x]))
        steps = [_stepper(each, x, y) for each in (net, learning)]
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.steps):
            for step, taken in zip(steps, times, strict=True):
                start = perf_counter()
                step()
                taken.append(1000 * (perf_counter() - start))
        float_ms, ms = (median(taken[2:]) for taken in times)
        print(f"{name}: float {float_ms:.1f} ms, {options.recipe} {ms:.1f} ms a step: {ms / float_ms:.2f} times")
    print(this_machine(), f"{torch.get_num_threads()} threads")


def _stepper(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    net.train()
    optimizer = Adam()(list(net.parameters()))

    def step() -> None:
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()

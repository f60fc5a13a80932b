"""`python -m benchmarks.training`: a training step with 8-bit fake quantization beside the float step, and beside
torchao's PT2E training where that is installed (`pip install torchao`).

The bar: at most twice the float step on the same network. All take turns, step by step; medians of each.
"""

import argparse
import copy
import importlib.util
from collections.abc import Callable
from statistics import median
from time import thread_time

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
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
        compared = {"float": _stepper(net.train(), x, y), options.recipe: _stepper(learning.train(), x, y)}
        if importlib.util.find_spec("torchao") is not None:
            compared["torchao PT2E"] = _stepper(_torchao(copy.deepcopy(net), x), x, y)
        times: dict[str, list[float]] = {each: [] for each in compared}
        for _ in range(options.steps):
            for each, step in compared.items():
                start = thread_time()  # of the processor: other work on the machine lengthens it less
                step()
                times[each].append(1000 * (thread_time() - start))
        found = {each: median(taken[2:]) for each, taken in times.items()}
        print(f"{name}: " + ", ".join(f"{each} {ms:.1f} ms ({ms / found['float']:.2f} times)"
                                      for each, ms in found.items()))
    print(this_machine(), f"{torch.get_num_threads()} threads")


def _stepper(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    optimizer = Adam()(list(net.parameters()))

    def step() -> None:
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _torchao(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """The peer: 8-bit activations per tensor, weights per channel, batch norm live, as for torch's own x86 kernels."""
    from torchao.quantization.pt2e import move_exported_model_to_train  # pyright: ignore[reportMissingImports]
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e  # pyright: ignore[reportMissingImports]
    from torchao.quantization.pt2e.quantizer import (  # pyright: ignore[reportMissingImports]
        x86_inductor_quantizer as x86,
    )

    exported = torch.export.export(net.train(), (x,)).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
    return move_exported_model_to_train(prepare_qat_pt2e(exported, quantizer))


if __name__ == "__main__":
    main()

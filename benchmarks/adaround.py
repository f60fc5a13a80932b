"""`python -m benchmarks.adaround`: AdaRound beside AIMET's, on one network and the same batches, 4 bits per channel.

Two 3×3 convolutions with a ReLU each, weights random, activations in float. For each number of iterations: CPU seconds
a layer and an iteration, and the squared error of the network's output over that of nearest rounding on the same grid.
One thread; the two take turns, medians of --rounds.

Needs `aimet-torch` (not among the extras: it asks for torchvision, which has no build beside the torch used here. It
loads data sets from it that AdaRound does not use; where it is missing an empty module stands in for it).
"""

import argparse
import importlib.machinery
import importlib.util
import json
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import FewbitsError
from fewbits.fold.fold import fold
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.machine import this_machine

BITS, CHANNELS, SIZE, BATCHES, IMAGES = 4, 16, 32, 8, 32
OURS, THEIRS = (400, 1000, 4000), (400, 1000, 4000)
RECIPE = Recipe.model_validate({
    "version": 1, "weights": {"format": f"int{BITS}", "symmetric": True, "block": "channel"}, "activations": "float"})
Model = Callable[[torch.Tensor], torch.Tensor]


class _Anything:
    def __getattr__(self, name: str) -> "_Anything":
        return _Anything()

    def __call__(self, *arguments: Any, **named: Any) -> "_Anything":
        return _Anything()


def _stand_in_for_torchvision() -> None:
    if importlib.util.find_spec("torchvision") is not None:
        return

    def anything(name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    for name in ("torchvision", *(f"torchvision.{part}" for part in ("datasets", "transforms", "models", "ops"))):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__["__getattr__"] = anything
        sys.modules[name] = module


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(),
              nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def data() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(IMAGES, CHANNELS, SIZE, SIZE, generator=generator) for _ in range(BATCHES)]


def ours(iterations: int) -> Model:
    model = fold(capture(network(), data()[0][:2]))
    simulation = calibrate(model, plan(model, RECIPE), data())
    if not iterations:
        return simulation
    return adaround(simulation, data(), schedule=Schedule(iterations=iterations), even_if_worse=True)


def theirs(iterations: int) -> Model:
    from aimet_common.defs import QuantScheme  # pyright: ignore[reportMissingImports]
    from aimet_torch.adaround.adaround_weight import (  # pyright: ignore[reportMissingImports]
        Adaround,
        AdaroundParameters,
    )

    parameters = AdaroundParameters(data_loader=[(x,) for x in data()], num_batches=BATCHES,
                                    default_num_iterations=iterations, forward_fn=lambda net, batch: net(batch[0]))
    with tempfile.TemporaryDirectory() as folder:
        model = Adaround.apply_adaround(network(), data()[0], parameters, folder, "x", default_param_bw=BITS,
                                        default_quant_scheme=QuantScheme.post_training_tf)
        grids = json.loads((Path(folder) / "x.encodings").read_text())["param_encodings"]
    # Its weights come back undecided where the iterations were few: its simulation then rounds them to this grid.
    for name, weight in model.named_parameters():
        if name in grids:
            scale = torch.tensor([channel["scale"] for channel in grids[name]]).reshape(-1, 1, 1, 1)
            weight.data = (weight.data / scale).round().clamp(-2**(BITS - 1), 2**(BITS - 1) - 1) * scale
    return model


def error(model: Model) -> float:
    """Mean square of what the output is off, on other images."""
    x = torch.randn(4 * IMAGES, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return float((model(x) - network()(x)).square().mean())


def main() -> int:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if importlib.util.find_spec("aimet_torch") is None:
        raise FewbitsError("aimet-torch is not installed: pip install --no-deps aimet-torch, then what it names as "
                           "missing")
    _stand_in_for_torchvision()
    nearest = error(ours(0))
    jobs: dict[tuple[str, int], Callable[[int], Model]] = {("fewbits", count): ours for count in OURS}
    jobs |= {("AIMET", count): theirs for count in THEIRS}
    seconds: dict[tuple[str, int], list[float]] = {job: [] for job in jobs}
    errors: dict[tuple[str, int], float] = {}
    for _ in range(given.rounds):
        for (who, iterations), run in jobs.items():
            start = time.process_time()
            model = run(iterations)
            seconds[who, iterations].append(time.process_time() - start)
            errors[who, iterations] = error(model) / nearest
    print("| | iterations | CPU s a layer | CPU ms an iteration | error, nearest = 1 |\n|---|---|---|---|---|")
    for (who, iterations), spent in seconds.items():
        layer = statistics.median(spent) / 2
        print(f"| {who} | {iterations} | {layer:.2f} | {1000 * layer / iterations:.2f} "
              f"| {errors[who, iterations]:.3f} |")
    print(f"\n{this_machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

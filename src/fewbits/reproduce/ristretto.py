"""Ristretto's number formats on Caffe's LeNet, after training only.

The document's figures are on its own LeNet of 99.15 %, in brackets without fine-tuning. Here the network is
trained anew, calibrated on 1024 training images, and its simulation scored on the 10 000 test images.
It rounds half away from zero, as Ristretto's code does. What differs: biases in the accumulator's precision,
logits not quantized, and the mended minifloat (ranges/ristretto.py names its slips).

Source: the lecture's three tables of Ristretto; Gysel et al. 2018.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.data.normalize import Normalize
from fewbits.data.split import DataSet, Split
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.reproduce.row import Given, Log, Row
from fewbits.tasks.lenet import lenet_caffe
from fewbits.tasks.training import initialised, train

BYTES = Normalize((0.0,), (1.0,), 256.0)
"""Caffe's scale of 0.00390625."""

@dataclass(frozen=True)
class Scheme:
    """One figure: a recipe, and what the document prints for LeNet (percent, None where it prints nothing)."""

    name: str
    weights: dict[str, str]
    activations: dict[str, str]
    printed: float | None

    @property
    def recipe(self) -> Recipe:
        """The recipe, per tensor as Ristretto does."""
        return Recipe.model_validate({"version": 1, "weights": _ristrettos(self.weights),
                                      "activations": _ristrettos(self.activations)})


def _ristrettos(line: dict[str, str]) -> dict[str, str | bool]:
    """Per tensor; powers of two have thresholds of their own and take no rounding."""
    return line | {"block": "tensor", "symmetric": True} | (
        {} if line["format"].startswith("pow2") else {"rounding": "half_away"})


def _dynamic(weight_bits: int, activation_bits: int) -> tuple[dict[str, str], dict[str, str]]:
    return ({"format": f"int{weight_bits}", "scale": "dynamic-weights"},
            {"format": f"int{activation_bits}", "scale": "dynamic-activations"})


_MINIFLOAT = {"format": "e4m3-finite-zero", "scale": "unit"}
_POWERS = {"format": "pow2-4", "scale": "unit"}

SCHEMES: tuple[Scheme, ...] = (
    Scheme("static fixed point Q4.4", {"format": "q4.4"}, {"format": "q4.4"}, 88.90),
    Scheme("dynamic fixed point, 8 bits", *_dynamic(8, 8), None),
    Scheme("dynamic fixed point, 4 bits", *_dynamic(4, 4), 98.72),
    Scheme("minifloat, 4 exponent and 3 mantissa bits", _MINIFLOAT, _MINIFLOAT, 99.20),
    Scheme("power-of-two weights, 4 bits; activations 8-bit dynamic", _POWERS, _dynamic(8, 8)[1], None),
)

PRINTED_FLOAT = 99.15
_EPOCHS = 4


def trained(data: DataSet, epochs: int, seed: int) -> nn.Module:
    """Caffe's LeNet, trained on the images that calibrate nothing."""
    net = initialised(lenet_caffe, seed)
    train(net, data.train, epochs=epochs, normalize=BYTES, batch_size=64, rate=0.05, seed=seed)
    return net


def accuracies(net: nn.Module, data: DataSet) -> Iterator[tuple[str, float]]:
    """Name and accuracy, percent of the test images, of the float network and of every scheme."""
    batches = data.calibration.inputs(128, BYTES)
    captured = capture(net, next(iter(batches)))
    yield "float", accuracy(net, data.test)
    for scheme in SCHEMES:
        simulation = calibrate(captured, plan(captured, scheme.recipe), batches)
        yield scheme.name, accuracy(simulation, data.test)


def accuracy(net: nn.Module, split: Split) -> float:
    """Percent of a split that a network gets right."""
    right = 0
    with torch.no_grad():
        for x, y in split.batches(500, BYTES):
            right += int((net(x).argmax(1) == y).sum())
    return 100 * right / len(split)


def reproduce(given: Given, log: Log) -> Mapping[str, float]:
    """Trains in float, then scores every scheme without training: accuracies in percent, by name."""
    log(f"training Caffe's LeNet for {_EPOCHS} epochs")
    reached = {}
    for name, figure in accuracies(trained(given.data, _EPOCHS, given.seed), given.data):
        log(f"{name}: {figure:.2f} %")
        reached[name] = round(figure, 4)
    return reached


ROWS = (
    Row("ristretto-lenet", "Caffe's LeNet on MNIST in Ristretto's formats, after training only: accuracy, %",
        "the lecture's tables of Ristretto, figures in brackets; Q4.4 printed 88.90, likely 98.90; Gysel et al. 2018",
        {"float": PRINTED_FLOAT} | {scheme.name: scheme.printed for scheme in SCHEMES if scheme.printed is not None},
        "mnist:DIR", reproduce, seconds=120),
)

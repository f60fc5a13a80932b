"""Ristretto's number formats on Caffe's LeNet, after training only: `python -m fewbits.reproduce.ristretto`.

The document's figures are on its own LeNet of 99.15 %, in brackets without fine-tuning. Here the network is
trained anew, calibrated on 1024 training images, and its simulation scored on the 10 000 test images.
What differs from Ristretto: half-even rounding for half-away, biases in the accumulator's precision, logits
not quantized, and the mended minifloat (ranges/ristretto.py names its slips).

Source: the lecture's three tables of Ristretto; Gysel et al. 2018.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from torch import nn

from fewbits.graph.capture import capture
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import plan
from fewbits.quant.recipe import Recipe
from fewbits.tasks.data import load
from fewbits.tasks.lenet import lenet_caffe
from fewbits.tasks.normalize import Normalize
from fewbits.tasks.split import DataSet, Split
from fewbits.tasks.training import initialised, train

BYTES = Normalize((0.0,), (1.0,), 256.0)
"""Caffe's scale of 0.00390625."""

_TENSOR = {"block": "tensor", "symmetric": True}


@dataclass(frozen=True)
class Scheme:
    """One row: a recipe, and what the document prints for LeNet (percent, None where it prints nothing)."""

    name: str
    weights: dict[str, str]
    activations: dict[str, str]
    printed: float | None
    remark: str = ""

    @property
    def recipe(self) -> Recipe:
        """The recipe, per tensor as Ristretto does."""
        return Recipe.model_validate({"version": 1, "weights": self.weights | _TENSOR,
                                      "activations": self.activations | _TENSOR})


def _dynamic(weight_bits: int, activation_bits: int) -> tuple[dict[str, str], dict[str, str]]:
    return ({"format": f"int{weight_bits}", "scale": "dynamic-weights"},
            {"format": f"int{activation_bits}", "scale": "dynamic-activations"})


_MINIFLOAT = {"format": "e4m3-finite-zero", "scale": "unit"}
_POWERS = {"format": "pow2-4", "scale": "unit"}

SCHEMES: tuple[Scheme, ...] = (
    Scheme("static fixed point Q4.4", {"format": "q4.4"}, {"format": "q4.4"}, 88.90, "printed; 98.90 is likely"),
    Scheme("dynamic fixed point, 8 bits", *_dynamic(8, 8), None),
    Scheme("dynamic fixed point, 4 bits", *_dynamic(4, 4), 98.72),
    Scheme("minifloat, 4 exponent and 3 mantissa bits", _MINIFLOAT, _MINIFLOAT, 99.20),
    Scheme("power-of-two weights, 4 bits; activations 8-bit dynamic", _POWERS, _dynamic(8, 8)[1], None),
)

PRINTED_FLOAT = 99.15


@dataclass(frozen=True)
class Row:
    """A scheme's accuracy on the test images, percent."""

    scheme: Scheme
    accuracy: float


def trained(data: DataSet, epochs: int, seed: int) -> nn.Module:
    """Caffe's LeNet, trained on the images that calibrate nothing."""
    net = initialised(lenet_caffe, seed)
    train(net, data.train, epochs=epochs, normalize=BYTES, batch_size=64, rate=0.05, seed=seed)
    return net


def rows(net: nn.Module, data: DataSet, schemes: Sequence[Scheme] = SCHEMES) -> Iterator[Row]:
    """Every scheme's accuracy on the test images, one after the other."""
    batches = data.calibration.inputs(128, BYTES)
    captured = capture(net, next(iter(batches)))
    for scheme in schemes:
        simulation = calibrate(captured, plan(captured, scheme.recipe), batches)
        yield Row(scheme, accuracy(simulation, data.test))


def accuracy(net: nn.Module, split: Split) -> float:
    """Percent of a split that a network gets right."""
    right = 0
    with torch.no_grad():
        for x, y in split.batches(500, BYTES):
            right += int((net(x).argmax(1) == y).sum())
    return 100 * right / len(split)


def table(reached: float, results: Sequence[Row]) -> str:
    """Text: the document's bracketed figures beside ours, and the loss against the float network of each."""
    lines = [f"{'':<58}{'document':>10}{'loss':>7}{'here':>9}{'loss':>7}",
             f"{'float':<58}{PRINTED_FLOAT:>10.2f}{'':>7}{reached:>9.2f}"]
    for row in results:
        printed, loss = row.scheme.printed, ""
        if printed is not None:
            loss = f"{PRINTED_FLOAT - printed:.2f}"
        lines.append(f"{row.scheme.name:<58}{'-' if printed is None else f'{printed:.2f}':>10}{loss:>7}"
                     f"{row.accuracy:>9.2f}{reached - row.accuracy:>7.2f}  {row.scheme.remark}".rstrip())
    return "\n".join(lines)


def main(
    data: Annotated[str, typer.Option(help="Where MNIST is: mnist:DIR or npz:FILE.")],
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of images.")] = 0,
) -> None:
    """Train Caffe's LeNet on MNIST and print the accuracy of each of Ristretto's formats."""
    found = load(data)
    net = trained(found, epochs, seed)
    sys.stdout.write(table(accuracy(net, found.test), list(rows(net, found))) + "\n")


if __name__ == "__main__":
    typer.run(main)

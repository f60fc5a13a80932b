"""Formats before and after fine-tuning: the network quantized as it is, then trained on in the same formats.

Every row trains (or is given) a float network, quantizes it by each of its recipes, and scores the simulation; then
each learns for some epochs from there, and its program is scored and compared code by code. The float figure is that of
the network as it was: a published table has one baseline for both columns.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from fewbits.capture.capture import capture
from fewbits.data.normalize import IMAGENET, MNIST, Normalize
from fewbits.data.split import Split
from fewbits.engines.executable import Executable
from fewbits.fold.fold import fold
from fewbits.graph.model import Model
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe, recipe
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare
from fewbits.reproduce.earlier import COMPARED, DIFFERING
from fewbits.reproduce.few_bits import codes, percent
from fewbits.reproduce.ristretto import BYTES
from fewbits.reproduce.row import Given, Log, Row
from fewbits.reproduce.together import counted
from fewbits.tasks.caffe_cifar import caffe_cifar10_full
from fewbits.tasks.few_bit_nets import lenet_norm
from fewbits.tasks.lenet import lenet_xavier
from fewbits.tasks.resnet_cifar import resnet20
from fewbits.tasks.training import initialised, train
from fewbits.train.after_training import calibrate_activations
from fewbits.train.codebook import CODEBOOK_STARTS
from fewbits.train.fit import Adam, MakeOptimizer, fit
from fewbits.train.parameters import Groups, with_range_rate
from fewbits.train.registry import trainable

_SAVED = 200  # steps between checkpoints
_ADAM = Adam(2e-4)


@dataclass(frozen=True)
class Format:
    """name: of its two figures, `NAME, before` and `NAME, after`; recipe: a preset's name or a recipe; as_program: off
    where a program has no such integers, 16 bits of weights and activations."""

    name: str
    recipe: str | Recipe
    as_program: bool = True


@dataclass(frozen=True)
class Tuning:
    """network: builds it; formats; normalize: of bytes; float_epochs, rate: of the float network, one-cycle, where no
    weights are given; caffes: it is trained by Caffe's solver instead; epochs, optimizer: of the fine-tuning;
    held_out: so many training images at the end are not trained on; errors: squared errors of the weights are figures
    too."""

    network: Callable[[], nn.Module]
    formats: tuple[Format, ...]
    normalize: Normalize
    float_epochs: int = 4
    rate: float = 0.05
    epochs: int = 1
    optimizer: MakeOptimizer = _ADAM
    batch_size: int = 64
    held_out: int = 0
    caffes: bool = False
    errors: bool = False


def tune(tuning: Tuning, given: Given, log: Log) -> Mapping[str, Any]:
    """Accuracies in % of the test images: `float`, and before and after fine-tuning of every format; images that each
    program gained and lost beside the float network; codes compared and differing, of all programs together. Squared
    errors of the weights, where they are wanted, in % of the squares of the float network's."""
    data, normalize = given.data, tuning.normalize
    learned = data.train if not tuning.held_out else data.train.take(len(data.train) - tuning.held_out)
    test, calibration = data.test.batches(500, normalize), data.calibration.inputs(128, normalize)
    net = initialised(tuning.network, given.seed)
    if not given.weights_into(net):
        log(f"training in float for {tuning.float_epochs} epochs")
        _train(net, learned, tuning, given)
    model = fold(capture(net.eval(), next(iter(calibration))), norms="keep")
    measured: dict[str, Any] = {"float": percent(net, test)}
    compared, beside = {COMPARED: 0, DIFFERING: 0}, {"test images": len(data.test)}
    for format in tuning.formats:
        learning = trainable(calibrate(copy.deepcopy(model), plan(model, format.recipe), calibration))
        before = percent(calibrate_activations(learning, calibration), test)
        error = _error(learning, model)
        batches = learned.batches(tuning.batch_size, normalize, torch.Generator().manual_seed(given.seed))
        name = format.name.replace("/", "-").replace(" ", "-")
        fit(learning, batches, epochs=tuning.epochs, optimizer=tuning.optimizer, seed=given.seed,
            checkpoint=given.checkpoint(f"{given.row}-{name}"), save_every=_SAVED)
        finished = calibrate_activations(learning, calibration)
        if format.as_program:
            program = lower(finished)
            seen = compare(net, Executable(program), test)
            after = round(100 * seen.accuracy.mean, 4)
            beside |= counted(f"{format.name} less float", seen)
            compared = {key: compared[key] + count for key, count in codes(program, data, normalize).items()}
        else:
            after = percent(finished, test)
        measured |= {f"{format.name}, before": before, f"{format.name}, after": after}
        if tuning.errors:
            measured |= {f"{format.name}, error before": error, f"{format.name}, error after": _error(finished, model)}
        log(f"{format.name}: {before:.2f} % before, {after:.2f} % after fine-tuning")
    return measured | beside | compared


def _error(simulation: Simulation, original: Model) -> float:
    """Squared error of the weights with codes, in % of the squares of what they were."""
    lost = of = 0.0
    with torch.no_grad():
        for name, site in simulation.plan.sites.items():
            if site.kind == "weight" and site.spec is not None:
                was = original.tensor(name).double()
                now = simulation.quantizer(name)(simulation.model.tensor(name)).double()
                lost, of = lost + float((now - was).square().sum()), of + float(was.square().sum())
    return round(100 * lost / of, 4)


def starts(tuning: Tuning, given: Given, log: Log) -> Mapping[str, Any]:
    """`tune` of codebooks of 4, 3 and 2 bits from the optimum and from each start of Lloyd's iteration that the paper
    compares; the seed draws the random one."""
    formats = tuple(Format(f"{bits} bits, {start}", _from_start(bits, start, given.seed))
                    for bits in (4, 3, 2) for start in ("optimal", *CODEBOOK_STARTS))
    return tune(replace(tuning, formats=formats), given, log)


def _from_start(bits: int, start: str, seed: int) -> Recipe:
    number = {"optimal": f"codebook({2**bits})", "random": f"codebook-random({2**bits},{seed})"}
    return _with_method(f"kmeans-w{bits}a8", number.get(start, f"codebook-{start}({2**bits})"))


def _train(net: nn.Module, learned: Split, tuning: Tuning, given: Given) -> None:
    """In float, in place."""
    name, epochs, seed = getattr(tuning.network, "__name__", "network"), tuning.float_epochs, given.seed
    if tuning.caffes:
        fit(net, learned.batches(64, tuning.normalize, torch.Generator().manual_seed(seed)), epochs=epochs,
            optimizer=_caffes, schedule=_inverse, seed=seed, checkpoint=given.checkpoint(f"{name}-caffes-{epochs}"),
            save_every=_SAVED)
    else:
        train(net, learned, epochs=epochs, normalize=tuning.normalize, batch_size=64, rate=tuning.rate, seed=seed,
              checkpoint=given.checkpoint(f"{name}-one-cycle-{epochs}"))


def _caffes(parameters: Groups) -> Optimizer:
    """Source: BVLC/caffe, examples/mnist/lenet_solver.prototxt."""
    return torch.optim.SGD(with_range_rate(parameters, 0.01), 0.01, momentum=0.9, weight_decay=5e-4)


def _inverse(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Caffe's `inv` with the solver's γ and power, whatever the length: the rate times (1 + 10⁻⁴ · step)^−0.75."""
    return LambdaLR(optimizer, lambda step: (1 + 1e-4 * step) ** -0.75)


def _ristretto_lenet() -> Row:
    """Start, solver and rate were chosen on the last 5000 training images after 300 steps of stochastic rounding at
    4/2/2: one-cycle from torch's start 84 %, Caffe's start and solver 94.3 %, and 95.5 % at three times the rate."""
    return Row("ristretto-lenet-tuned", "Caffe's LeNet on MNIST, trained for 4 epochs by Caffe's solver, in dynamic "
               "fixed point (activations/convolutions/linear layers), before and after 2 epochs of fine-tuning, "
               "stochastically rounded as in the paper or to the nearest", _RISTRETTO,
               {"float": 99.15, "4/4/4, before": 98.72, "4/4/4, after": 98.95, "4/2/2, before": 98.03,
                "4/2/2, after": 98.81}, "mnist:DIR",
               partial(tune, Tuning(lenet_xavier, _LENET, BYTES, epochs=2, optimizer=Adam(3e-3), caffes=True)), "", 400)


def _with_method(preset: str, method: str) -> Recipe:
    """A preset whose weights learn by another method than its own: `none` rounds to the nearest in the range
    of calibration."""
    given = recipe(preset)
    assert given.weights != "float", f"{preset} quantizes weights"
    return given.model_copy(update={"weights": given.weights.model_copy(update={"method": method})})


def _static(name: str) -> Recipe:
    """A static fixed point for weights and activations, half away from zero as in Ristretto's code."""
    spec = {"format": name, "symmetric": True, "block": "tensor", "rounding": "half_away"}
    return Recipe.model_validate({"version": 1, "weights": spec | {"method": "stochastic"}, "activations": spec})


def _minifloat(name: str) -> Recipe:
    spec = {"format": name, "symmetric": True, "block": "tensor", "scale": "unit", "rounding": "half_away"}
    return Recipe.model_validate({"version": 1, "weights": spec | {"method": "stochastic"}, "activations": spec})


def _cifar10_full() -> nn.Module:
    """Without its local response normalization, which the formats of the table leave in float."""
    return caffe_cifar10_full(norm=False)


_RISTRETTO = "the lecture's tables of Ristretto (before: in brackets there); Gysel et al. 2016, arXiv:1604.03168"
_HAN = "Han, Mao and Dally 2016, arXiv:1510.00149, §3 (ImageNet by bits: a small analogue)"
_SHARED = tuple(Format(f"{bits} bits", f"kmeans-w{bits}a8") for bits in (4, 3, 2))
_LENET = (Format("4/4/4", "ristretto-dfp-w4a4"), Format("4/2/2", "ristretto-dfp-w2a4"),
          Format("4/2/2 to the nearest", _with_method("ristretto-dfp-w2a4", "none")))
_CIFAR10 = (Format("8/8/8", "ristretto-dfp-w8a8"), Format("Q8.8", _static("q8.8"), False),
            Format("e5m2", _minifloat("e5m2-finite-zero"), False))

ROWS = (
    _ristretto_lenet(),
    Row("ristretto-cifar10-tuned", "Caffe's full CIFAR-10 network without its normalization, trained on 10 000 images, "
        "500 test images: dynamic fixed point 8/8/8, static Q8.8, minifloat e5m2, before and after fine-tuning",
        _RISTRETTO, {"float": 81.69, "8/8/8, before": 80.64, "8/8/8, after": 81.44, "Q8.8, before": 80.94,
                     "Q8.8, after": 81.38, "e5m2, before": 80.47, "e5m2, after": 80.85},
        "cifar10:DIR", partial(tune, Tuning(_cifar10_full, _CIFAR10, IMAGENET, 20, 0.02, 2, Adam(1e-4))), "", 700),
    Row("kmeans-lenet", "values shared by a layer (k-means), LeNet 20-50-500-10 with batch norm on MNIST, before and "
        "after fine-tuning of the values", _HAN, {}, "mnist:DIR",
        partial(tune, Tuning(lenet_norm, _SHARED, MNIST, 1)), "", 150),
    Row("kmeans-resnet20", "values shared by a layer (k-means), ResNet-20 on 8000 CIFAR-10 images, 500 test images, "
        "before and after fine-tuning of the values", _HAN, {}, "cifar10:DIR",
        partial(tune, Tuning(resnet20, _SHARED, IMAGENET, epochs=2, optimizer=Adam(1e-3), held_out=2000)), "", 200,
        "resnet20-12fca82f.th"),
    Row("kmeans-starts-resnet20", "where k-means starts (the optimum, or Lloyd's iteration from linear, density and "
        "random starts): squared error of the weights in % of their squares, and accuracy, before and after one epoch "
        "of fine-tuning; ResNet-20 on 4000 CIFAR-10 images, 500 test images", "Han, Mao and Dally 2016, "
        "arXiv:1510.00149, §3.2 (AlexNet: a small analogue; linear starts best there but at 3 bits)", {},
        "cifar10:DIR", partial(starts, Tuning(resnet20, (), IMAGENET, optimizer=Adam(1e-3), held_out=6000,
                                              errors=True)), "", 300, "resnet20-12fca82f.th"),
)

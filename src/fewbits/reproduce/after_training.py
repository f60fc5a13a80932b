"""Results of quantization without labels or fine-tuning: how much calibration, which rounding, what pruning saves."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.artifact.weights import weights_bytes
from fewbits.capture.capture import capture
from fewbits.compress.flow import Progress, Settings, prunable, prune_and_retrain
from fewbits.compress.share import share
from fewbits.data.normalize import CAFFE_IMAGENET, IMAGENET, MNIST
from fewbits.data.split import DataSet
from fewbits.engines.executable import Executable
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.optimize.rounding_study import rounding_study
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.accuracy import compare, evaluate
from fewbits.report.calibration_study import calibration_study
from fewbits.reproduce.few_bits import percent
from fewbits.reproduce.row import Given, Log, Row
from fewbits.tasks.lenet import lenet_caffe
from fewbits.tasks.resnet_cifar import resnet20
from fewbits.tasks.squeezenet import squeezenet
from fewbits.tasks.training import initialised, train
from fewbits.train.fit import Nesterov

_BATCH = 20  # images: the calibration set of CIFAR-10 then holds fifty batches
_DRAWS = 10
_CHOSEN_ON = 1000  # of the last training images
_BITS = (2, 3, 4, 5, 6)


def _resnet20(given: Given) -> nn.Module:
    net = resnet20()
    assert given.weights_into(net), "the row asks for them"
    return net.eval()


def calibration_batches(given: Given, log: Log) -> Mapping[str, Any]:
    """Accuracies in % of the test images: `float`, and of programs calibrated by entropy on 5, 10 and 50 batches of 20
    images (TensorRT's rule and grids). Another seed draws other images."""
    net, data = _resnet20(given), given.data
    batches = list(data.draw_calibration(given.seed).inputs(_BATCH, IMAGENET))
    model = fold(capture(net, batches[0]))
    test = data.test.batches(250, IMAGENET)
    measured: dict[str, Any] = {}
    study = calibration_study(model, plan(model, "w8a8-entropy"), batches, test, profile="tensorrt", float_model=net)
    for row in study:
        measured["float"] = round(100 * row.comparison.float_accuracy.mean, 4)
        measured[f"{row.batches} batches"] = round(100 * row.comparison.accuracy.mean, 4)
        log(f"{row.batches} batches: {measured[f'{row.batches} batches']:.2f} %")
    return measured | {"test images": len(data.test)}


def roundings(given: Given, log: Log) -> Mapping[str, Any]:
    """Accuracies in % of the test images with all weights of 4 bits rounded in every classic way, activations float:
    means of the draws where there are several, and their standard deviation; the best is chosen on training images."""
    net, data = _resnet20(given), given.data
    calibration = list(data.draw_calibration(given.seed).inputs(64, IMAGENET))
    model = fold(capture(net, calibration[0]))
    simulation = calibrate(model, plan(model, Recipe.model_validate({
        "version": 1, "weights": {"format": "int4", "symmetric": True, "block": "channel", "range": "mse"},
        "activations": {"format": "uint8", "symmetric": False, "block": "tensor"}})), calibration)
    simulation.set_mode("off", ["input", "activation"])
    count = len(data.train)
    chosen_on = data.train.subset(range(max(count - _CHOSEN_ON, 0), count)).batches(250, IMAGENET)
    found = rounding_study(simulation, calibration, lambda each: percent(each, data.test.batches(250, IMAGENET)),
                           choose=lambda each: evaluate(each, chosen_on).mean, draws=_DRAWS, seed=given.seed)
    measured: dict[str, Any] = {"float": percent(net, data.test.batches(250, IMAGENET))}
    for row in found:
        log(str(row))
        measured[row.way] = round(row.mean, 4)
        if len(row.scores) > 1:
            measured[f"{row.way}, standard deviation"] = round(row.deviation, 4)
    return measured | {"test images": len(data.test)}


def dynamic_fixed_point(given: Given, log: Log) -> Mapping[str, Any]:
    """SqueezeNet in Ristretto's 8-bit dynamic fixed point, nothing trained (activations round half to even, Ristretto's
    half away): accuracies in % of the test images, of the
    float network and the program; the exact 95 % interval of the difference, image by image; classes changed; mean
    logit signal to noise in dB."""
    net, data = squeezenet(), given.data
    assert given.weights_into(net), "the row asks for them"
    calibration = data.draw_calibration(given.seed).inputs(32, CAFFE_IMAGENET)
    model = fold(capture(net.eval(), next(iter(calibration))[:2]))
    shared = {"format": "int8", "symmetric": True, "block": "tensor"}
    recipe = Recipe.model_validate({
        "version": 1, "weights": shared | {"scale": "dynamic-weights", "rounding": "half_away"},
        "activations": shared | {"scale": "dynamic-activations"}, "outputs": "float"})
    program = lower(calibrate(model, plan(model, recipe), calibration))
    seen = compare(net, Executable(program), data.test.batches(32, CAFFE_IMAGENET))
    low, high = (round(100 * end, 4) for end in seen.interval)
    return {"float": round(100 * seen.float_accuracy.mean, 4), "8 bits, before": round(100 * seen.accuracy.mean, 4),
            "gap from": low, "gap to": high, "flips": seen.flips, "dB": round(seen.sqnr, 2),
            "test images": seen.samples}


@dataclass(frozen=True)
class Sizes:
    """densities: of each layer, where it is pruned; float_epochs, prune_epochs: of the two trainings."""

    densities: tuple[float, ...] = (0.66, 0.12, 0.08, 0.19)
    float_epochs: int = 4
    prune_epochs: int = 6


def sizes(settings: Sizes, given: Given, log: Log) -> Mapping[str, Any]:
    """How many times smaller than four bytes a parameter the file is, and its test error in %, by bits of a code: with
    and without pruning to the paper's densities, nothing being trained after weights share values."""
    data, seed = given.data, given.seed
    test = data.test.batches(500, MNIST)
    net = initialised(lenet_caffe, seed)
    log(f"training in float for {settings.float_epochs} epochs")
    train(net, data.train, epochs=settings.float_epochs, normalize=MNIST, batch_size=64, rate=0.05, seed=seed,
          checkpoint=given.checkpoint(f"lenet_caffe-sizes-{settings.float_epochs}"))
    pruned = _pruned(net, settings, data, seed)
    measured: dict[str, Any] = {"float, error": round(100 - percent(net, test), 4),
                                "pruned, error": round(100 - percent(pruned, test), 4)}
    for bits in _BITS:
        for name, network in (("all", net), ("pruned", pruned)):
            smaller, error = _shared(network, 2**bits, test)
            measured |= {f"{bits} bits, {name}, times smaller": smaller, f"{bits} bits, {name}, error": error}
            log(f"{bits} bits, {name} weights: {smaller:.1f} times smaller, {error:.2f} % error")
    return measured | {"test images": len(data.test)}


def _pruned(net: nn.Module, settings: Sizes, data: DataSet, seed: int) -> nn.Module:
    """A copy pruned to the densities while it is trained on."""
    pruned, names = copy.deepcopy(net).train(), prunable(net)

    def epochs(number: int) -> Iterable[tuple[Tensor, Tensor]]:
        return data.train.batches(128, MNIST, torch.Generator().manual_seed(10_000 * seed + number))

    prune_and_retrain(pruned, epochs, Settings(dict(zip(names, settings.densities, strict=True)),
                                               dict.fromkeys(names, 16), prune_epochs=settings.prune_epochs,
                                               optimizer=Nesterov(0.02)), Progress())
    return pruned.eval()


def _shared(net: nn.Module, centroids: int, test: Any) -> tuple[float, float]:
    """(times smaller than in floats, test error in %) with so many values a layer; weights of 0 stay apart."""
    state, decoded = dict(net.state_dict()), copy.deepcopy(net)
    shared = {}
    for name in prunable(net):
        weight = state[name].numpy()
        zeros = (weight == 0).any()
        shared[name] = share(weight, centroids, mask=weight != 0 if zeros else None)
        decoded.get_parameter(name).data.copy_(torch.from_numpy(shared[name].dense()))
    whole = sum(4 * tensor.numel() for tensor in state.values())
    return round(whole / len(weights_bytes(state, shared, "lenet_caffe")), 4), round(100 - percent(decoded, test), 4)


_WEIGHTS = "resnet20-12fca82f.th"

ROWS = (
    Row("tensorrt-batches-resnet20", "entropy calibration with 5, 10 and 50 batches of 20 images: ResNet-20 on "
        "CIFAR-10, 500 test images, accuracy, %", "Migacz, 8-bit inference with TensorRT, GTC 2017 (six ImageNet "
        "networks: a small analogue)", {}, "cifar10:DIR", calibration_batches, "w8a8-entropy", 60, _WEIGHTS),
    Row("rounding-resnet20", "4-bit weights rounded in every classic way: ResNet-20 on CIFAR-10, 500 test images, "
        "accuracy, %", "Nagel et al. 2020, arXiv:2004.10568, Table 1 (ResNet-18 on ImageNet, first layer: a small "
        "analogue)", {}, "cifar10:DIR", roundings, "", 200, _WEIGHTS),
    Row("ristretto-squeezenet", "SqueezeNet 1.1 in 8-bit dynamic fixed point, before fine-tuning: 64 photographs "
        "calibrate, accuracy of 136 others, %", "the lecture's tables of Ristretto (50 000 images; before: in brackets "
        "there); Gysel et al. 2016, arXiv:1604.03168", {"float": 57.68, "8 bits, before": 55.25,
        "8 bits, after": 57.09}, "images:DIR", dynamic_fixed_point, "", 60, "squeezenet1.1_fp32_from_fp16.npz",
        (3, 227, 227)),
    Row("sizes-lenet", "file size by bits of a code, with and without pruning: Caffe's LeNet on MNIST",
        "Han, Mao and Dally 2016, arXiv:1510.00149, Fig. 6 and 7 (AlexNet: a small analogue)", {}, "mnist:DIR",
        partial(sizes, Sizes()), "", 250),
)

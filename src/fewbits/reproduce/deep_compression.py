"""Deep Compression of the LeNets on MNIST (Han, Mao and Dally 2016, arXiv:1510.00149, Tables 1 to 3).

Beyond the paper: both networks, the float one and the compressed one, learn from images moved by up to a pixel; the
compressed one learns from a float network too, its own original or a better one (`distillation`); weights take their
shared values by and by; the cost of bits takes part in the choice of codes; and long biases share values as weights do.
The last 5 000 training images are for validation: the settings below were chosen on them. The test images are
looked at once, at the end. Sizes are those of the whole file, in bytes, header included, against four bytes for each
parameter.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.artifact.weights import WeightsFile, weights_bytes
from fewbits.compress.flow import Progress, Settings, prunable, prune_and_retrain, share_and_retrain, tune_codebooks
from fewbits.compress.positions import fillers
from fewbits.compress.share import Shared, share
from fewbits.data.split import Split
from fewbits.errors import DataError
from fewbits.report.accuracy import evaluate
from fewbits.reproduce.lessons import Lessons, distillation
from fewbits.reproduce.row import Given, Log, Row
from fewbits.tasks.registry import resolve
from fewbits.tasks.training import initialised, train
from fewbits.train.fit import Nesterov

_SOURCE = "Han, Mao and Dally 2016, arXiv:1510.00149"
_VALIDATION = 5000
_BATCH = 128
_SHIFT = 1  # pixels
_PRECISION = torch.bfloat16  # of products in training; what is measured runs in float32
_TEACHER_EPOCHS = 8
_GAP = 32  # the paper's five bits
_BIAS_CENTROIDS = 16


@dataclass(frozen=True)
class Schedule:
    """network; densities and centroids: by layer, in order; price: of a bit (`flow.Settings`); float_epochs,
    prune_epochs, share_epochs, tune_epochs: of the four trainings; rate: the highest of the compressed network's;
    teacher: the network that it learns from beside the labels, trained as its float original is, which serves by
    default."""

    network: str
    densities: tuple[float, ...]
    centroids: tuple[int, ...]
    price: float
    float_epochs: int
    prune_epochs: int
    share_epochs: int
    tune_epochs: int
    rate: float = 0.05
    teacher: str | None = None


def compress(plan: Schedule, given: Given, log: Log) -> Mapping[str, Any]:
    """Trains in float, prunes, shares, codes; gives errors in %, sizes, and the table by layer and stage.

    float_error, error: of the test images; validation_float_error, validation_error; pruned_error: before sharing;
    times_smaller; times_smaller_pruned, times_smaller_shared: with gaps of five bits and fillers, as the paper counts.
    """
    data, seed, task = given.data, given.seed, resolve(plan.network)
    if len(data.train) <= _VALIDATION or data.train.y is None or data.test.y is None or task.normalize is None:
        raise DataError(f"{data.name} is not the data of this row: give --data {task.data_hint}")
    count = len(data.train) - _VALIDATION
    validation = _normalised(data.train.subset(range(count, len(data.train))), task.normalize)
    learning = _normalised(data.train.subset(range(count)), task.normalize)
    test = _normalised(data.test, task.normalize)
    net = _trained(plan.network, learning, plan.float_epochs, seed)
    original = copy.deepcopy(net)
    log(f"float: {_error(net, validation):.2f} % validation error")
    teacher = original
    if plan.teacher:
        teacher = _trained(plan.teacher, learning, _TEACHER_EPOCHS, seed)
        log(f"{plan.teacher}, to learn from: {_error(teacher, validation):.2f} % validation error")

    lessons = Lessons(learning, teacher, shift=_SHIFT, batch_size=_BATCH, precision=_PRECISION)

    def epochs(number: int) -> Iterable[tuple[Tensor, Tensor]]:
        return lessons.epoch(10_000 * seed + number)

    names = prunable(net)
    settings = Settings(dict(zip(names, plan.densities, strict=True)), dict(zip(names, plan.centroids, strict=True)),
                        plan.price, prune_epochs=plan.prune_epochs, share_epochs=plan.share_epochs,
                        tune_epochs=plan.tune_epochs, optimizer=Nesterov(plan.rate), precision=_PRECISION)
    masks = prune_and_retrain(net, epochs, settings, Progress(), lambda progress: log(
        f"pruning and retraining: epoch {progress.done} of {plan.prune_epochs}"), distillation)
    pruned = copy.deepcopy(net)
    shared = share_and_retrain(net, epochs, settings, masks.masks, distillation)
    shared |= _shared_biases(net)
    shared = tune_codebooks(net, shared, epochs, settings, distillation)
    state = dict(net.state_dict())
    file = WeightsFile.of_bytes(weights_bytes(state, shared, plan.network))
    decoded = copy.deepcopy(net)
    decoded.load_state_dict(file.state_dict())  # what is measured is what the file holds
    log(f"compressed: {_error(decoded, validation):.2f} % validation error, {file.size} bytes")
    whole = sum(4 * tensor.numel() for tensor in state.values())
    biases = sum(4 * tensor.numel() for name, tensor in state.items() if name not in names)
    stages = {name: _stages(shared[name]) for name in names}
    return {
        "float_error": _error(original, test), "error": _error(decoded, test), "pruned_error": _error(pruned, test),
        "validation_float_error": _error(original, validation), "validation_error": _error(decoded, validation),
        "bytes": file.size, "times_smaller": whole / file.size,
        "times_smaller_pruned": whole / (biases + sum(stage["pruned"] for stage in stages.values())),
        "times_smaller_shared": whole / (biases + sum(stage["shared"] for stage in stages.values())),
        "layers": {name: {**stages[name], "coded": sum(i.bytes for i in file.items() if i.layer == name),
                          "entropy": round(file.bounds()[name])} for name in names},
        "parts": _parts(file), "settings": asdict(plan),
    }


def _trained(network: str, learning: Split, epochs: int, seed: int) -> nn.Module:
    """A float network from scratch, as long as it learns from moved images."""
    net = initialised(resolve(network).build, seed)
    net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # 1.7 times as fast
    train(net, learning, epochs=epochs, batch_size=64, shift=_SHIFT, precision=_PRECISION, seed=seed, quiet=True)
    return net.eval()


def _shared_biases(net: nn.Module) -> dict[str, Shared]:
    """Long biases by name, sixteen values each; as floats they would take a tenth of the file."""
    return {name: share(parameter.detach().numpy(), _BIAS_CENTROIDS) for name, parameter in net.named_parameters()
            if parameter.ndim == 1 and parameter.numel() > 4 * _BIAS_CENTROIDS}


def _stages(shared: Shared) -> dict[str, float]:
    """Bytes of a layer at 32 bits a weight and a gap of five bits; with codes of whole bits and a codebook instead."""
    assert shared.positions is not None
    stored = len(fillers(shared.positions, _GAP)[0])
    k = shared.centroids.size
    return {"weights": shared.size, "density": len(shared.positions) / shared.size, "centroids": k,
            "pruned": stored * (32 + 5) / 8, "shared": stored * (int(np.ceil(np.log2(max(k, 2)))) + 5) / 8 + 4 * k}


def _parts(file: WeightsFile) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for item in file.items():
        sizes[item.part] = sizes.get(item.part, 0) + item.bytes
    return sizes


def _normalised(split: Split, normalize: Any) -> Split:
    return split if split.x.dtype == torch.float32 else Split(normalize(split.x), split.y)


def _error(net: nn.Module, split: Split) -> float:
    net.eval()
    return round(100 * (1 - evaluate(net, split.batches(1000)).mean), 4)


def _row(name: str, what: str, published: Mapping[str, float], plan: Schedule) -> Row:
    return Row(name, what, _SOURCE, published, "mnist:DIR", partial(compress, plan), seconds=900)


ROWS = (
    _row("deep-compression-lenet-300-100", "LeNet-300-100 on MNIST, 40x at no loss",
         {"float_error": 1.64, "error": 1.58, "times_smaller": 40, "times_smaller_pruned": 12,
          "times_smaller_shared": 32},
         Schedule("lenet_300_100", (0.105, 0.14, 0.3), (32, 32, 32), 0.0125, 24, 40, 8, 4, teacher="lenet_caffe")),
    _row("deep-compression-lenet-300-100-beyond", "the same network, smaller than the paper's",
         {"float_error": 1.64, "error": 1.58, "times_smaller": 40},
         Schedule("lenet_300_100", (0.051, 0.085, 0.3), (32, 32, 32), 0.05, 24, 60, 12, 4, teacher="lenet_caffe")),
    _row("deep-compression-lenet-5", "Caffe's LeNet (20-50-500-10) on MNIST, 39x at no loss",
         {"float_error": 0.80, "error": 0.74, "times_smaller": 39, "times_smaller_pruned": 12,
          "times_smaller_shared": 33},
         Schedule("lenet_caffe", (0.66, 0.16, 0.092, 0.2), (32, 32, 32, 32), 0.01, 8, 24, 4, 2, 0.03, "lenet_twn")),
    _row("deep-compression-lenet-5-beyond", "the same network, smaller than the paper's",
         {"float_error": 0.80, "error": 0.74, "times_smaller": 39},
         Schedule("lenet_caffe", (0.5, 0.08, 0.0126, 0.12), (32, 32, 32, 32), 0.03, 8, 50, 8, 4, 0.03, "lenet_twn")),
)

"""Training in few bits: each method's published result, or a small analogue of it.

Every row trains a float network, then its offspring in few bits from it or from the start, then the float network for
as many epochs more, so that both have learned equally long. It lowers what it learned and compares every code of the
program with every engine. Settings were chosen once, for all rows alike but where a row says
another, and not by looking at test images.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.capture.capture import capture
from fewbits.data.normalize import IMAGENET, MNIST, Normalize
from fewbits.data.shifted import Mirrored, Shifted
from fewbits.data.split import DataSet
from fewbits.engines.executable import Executable
from fewbits.fold.fold import fold
from fewbits.fold.shortcuts import separate_shortcuts
from fewbits.lower.lower import lower
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe, Rule, recipe
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare, evaluate
from fewbits.report.engines import agreement
from fewbits.reproduce.earlier import COMPARED, DIFFERING
from fewbits.reproduce.row import Given, Log, Row
from fewbits.reproduce.together import counted
from fewbits.tasks.few_bit_nets import lab_mlp, lenet_norm, lenet_signs, lenet_tanh, mlp_norm, mlp_tanh
from fewbits.tasks.lenet_twn import lenet_twn
from fewbits.tasks.resnet_cifar import resnet20
from fewbits.tasks.training import initialised
from fewbits.tasks.vgg_cifar import BEFORE_POOLS, vgg_signs
from fewbits.train.after_training import calibrate_activations
from fewbits.train.binary_connect import squared_hinge
from fewbits.train.distillation import Distillation
from fewbits.train.fit import Adam, Loss, MakeOptimizer, MakeSchedule, Nesterov, WarmedCosine, cosine, fit
from fewbits.train.registry import trainable
from fewbits.train.xnor import WithScalingMaps

_ADAM = Adam(1e-3)
_COMPARED = 64  # test images at which every value of the program is compared
_SAVED = 200  # steps between checkpoints


@dataclass(frozen=True)
class Training:
    """network: builds it; recipe: a preset; float_epochs, epochs: in float, then in few bits; optimizer, loss,
    schedule: of both; in place of float_epochs a row may be given weights to begin with; scaling_maps: with XNOR-Net's
    K, which the program leaves out; moves: images are moved by up to so many pixels and mirrored by chance; held_out:
    so many training images at the end are not trained on, settings being chosen on them; distilled: share of the loss
    that follows the float network's answers; shortcuts: those of residual blocks have 8 bits, whatever layers read;
    before_pools: modules of convolutions whose results a pool reads before their batch norm: 8 bits, not signs."""

    network: Callable[[], nn.Module]
    recipe: str
    float_epochs: int
    epochs: int
    normalize: Normalize = MNIST
    optimizer: MakeOptimizer = _ADAM
    loss: Loss = F.cross_entropy
    batch_size: int = 100
    scaling_maps: bool = False
    schedule: MakeSchedule = cosine
    moves: int = 0
    held_out: int = 0
    distilled: float = 0.0
    shortcuts: bool = False
    before_pools: tuple[str, ...] = ()

    def rules(self) -> Recipe:
        """The preset, and what is said of pools before it."""
        preset = recipe(self.recipe)
        wide = {"format": "int8", "symmetric": True, "block": "tensor", "scale": "restricted", "method": "moving(0.99)"}
        first = [Rule.model_validate({"module": name, "activations": wide}) for name in self.before_pools]
        return preset.model_copy(update={"rules": (*first, *preset.rules)})


def run(training: Training, given: Given, log: Log) -> Mapping[str, Any]:
    """Accuracies in % of the test images: `float`; `few bits`, of the simulation as it was trained; `program`, of the
    integers, the 95 % interval of its difference from `float`, image by image, and the images it gained and lost.
    `codes compared` and `codes
    differing`, of all engines at all values."""
    data = given.data
    net = _begun(training, given, log)
    original = copy.deepcopy(net)
    test = data.test.batches(500, training.normalize)
    calibration = data.calibration.inputs(training.batch_size, training.normalize)
    model = fold(capture(net.eval(), next(iter(calibration))), norms="keep")
    model = separate_shortcuts(model) if training.shortcuts else model
    learning = trainable(calibrate(model, plan(model, training.rules()), calibration))
    log(f"learning by {training.recipe}")
    trained = WithScalingMaps(learning) if training.scaling_maps else learning
    teacher = Distillation(copy.deepcopy(original).eval(), share=training.distilled) if training.distilled else None
    _fit(trained, training, given, training.epochs, f"{given.row}-few", teacher)
    _longer(original, training, given)
    reached = {"float": percent(original.eval(), test), "few bits": percent(trained, test)}
    finished = calibrate_activations(learning, calibration)
    return reached | _lowered(finished, data, training, original)


def _begun(training: Training, given: Given, log: Log) -> nn.Module:
    net = initialised(training.network, given.seed)
    if not given.weights_into(net) and training.float_epochs:
        log(f"training in float for {training.float_epochs} epochs")
        _fit(net, training, given, training.float_epochs, _float_stage(training, "begun"))
    return net


def _longer(net: nn.Module, training: Training, given: Given) -> None:
    """Trains the float network for as long as its offspring learned; given weights stay as they are."""
    if given.weights is None:
        _fit(net, training, given, training.epochs, _float_stage(training, "longer"))


def _float_stage(training: Training, stage: str) -> str:
    """Names a float training by what decides it, so that rows that share it share its checkpoint."""
    name = getattr(training.network, "__name__", "network")
    return "-".join([name, stage, str(training.float_epochs), str(training.epochs),
                     training.loss.__name__, str(training.batch_size)])


def _fit(net: nn.Module, training: Training, given: Given, epochs: int, stage: str,
         teacher: Distillation | None = None) -> None:
    learned, seed = given.data.train, given.seed
    if training.held_out:
        learned = learned.take(len(learned) - training.held_out)
    batches = learned.batches(training.batch_size, training.normalize, torch.Generator().manual_seed(seed))
    moved = Mirrored(Shifted(batches, training.moves, torch.Generator().manual_seed(seed)),
                     torch.Generator().manual_seed(seed)) if training.moves else batches
    fit(net, moved, epochs=epochs, optimizer=training.optimizer, schedule=training.schedule, loss=training.loss,
        distillation=teacher, seed=seed, checkpoint=given.checkpoint(stage), save_every=_SAVED)


def percent(net: Any, batches: Any) -> float:
    """Accuracy in %, as records hold it."""
    return round(100 * evaluate(net, batches).mean, 4)


def _lowered(simulation: Simulation, data: DataSet, training: Training, original: nn.Module) -> dict[str, Any]:
    program: Program = lower(simulation)
    beside = compare(original.eval(), Executable(program), data.test.batches(500, training.normalize))
    low, high = (round(100 * end, 4) for end in beside.interval)
    return {"program": round(100 * beside.accuracy.mean, 4), "gap from": low, "gap to": high,
            **counted("program less float", beside), **codes(program, data, training.normalize)}


def codes(program: Program, data: DataSet, normalize: Normalize) -> dict[str, int]:
    """`codes compared` and `codes differing`: of every value of a program, by every engine that promises equality, on
    64 test images."""
    compared = agreement(program, [next(iter(data.test.inputs(_COMPARED, normalize)))], every_value=True)
    exact = [row for row in compared if row.exact]
    return {COMPARED: sum(row.compared for row in exact), DIFFERING: sum(row.differing for row in exact)}


def lab(given: Given, log: Log) -> Mapping[str, Any]:
    """The QAT lab's curve: 20 epochs in float, then 20 with its quantizers; accuracy in % after each epoch around the
    switch, and at the end."""
    raw = Normalize((0.0,), (1.0,), 255.0)
    training = Training(lab_mlp, "lab-int8", 20, 20, raw, Nesterov(0.01, momentum=0.1, weight_decay=0.0))
    data = given.data
    net, test = _begun(training, given, log), data.test.batches(500, raw)
    original = copy.deepcopy(net)
    before = percent(net.eval(), test)
    calibration = data.calibration.inputs(100, raw)
    model = fold(capture(net, next(iter(calibration))), norms="keep")
    learning = trainable(calibrate(model, plan(model, training.recipe), calibration))
    learning.train()
    learning(next(iter(data.train.inputs(100, raw))))  # the first batch fixes the ranges
    switched = percent(learning.eval(), test)
    log(f"{before:.2f} % in float, {switched:.2f} % at the switch; 20 epochs in 8 bits")
    _fit(learning, training, given, 1, f"{given.row}-first")
    first = percent(learning, test)
    _fit(learning, training, replace(given, seed=given.seed + 1), 19, f"{given.row}-rest")
    return {"float": before, "at the switch": switched, "after one epoch": first,
            "few bits": percent(learning, test)} | _lowered(learning, data, training, original)


def _row(name: str, what: str, source: str, published: Mapping[str, float], training: Training, seconds: int,
         data: str = "mnist:DIR", weights: str | None = None) -> Row:
    return Row(name, what, source, published, data, partial(run, training), training.recipe, seconds, weights)


def _lenet(method: str, what: str, source: str, network: Callable[[], nn.Module] = lenet_norm,
           optimizer: MakeOptimizer = _ADAM) -> Row:
    return _row(f"{method}-lenet", f"{what}, LeNet 20-50-500-10 with batch norm on MNIST", source, {},
                Training(network, method, 1, 2, optimizer=optimizer), 120)


def _qnn(weight_bits: int) -> Row:
    """The rate, and a batch norm behind the last layer as the paper has it, were chosen on the last 5000 training
    images after one epoch of 20 000: 96.1 % without the norm, 97.4 % with it, 98.3 % at five times the rate."""
    what = f"QNN, {weight_bits}-bit weights, 2-bit activations, batch norm behind the last layer too"
    return _lenet(f"qnn-w{weight_bits}a2", what, _QNN, lenet_signs, Adam(5e-3))


def _resnet(method: str, what: str, source: str, epochs: int, rate: float = 3e-3,
            published: Mapping[str, float] | None = None) -> Row:
    """Moves and the teacher's share were chosen with LSQ at 2 bits on training images 8000 to 9999, which no run learns
    from (the given float network did: 99.9 % there), and so were the rates of the others. Accuracy there after one
    epoch at 0.001 and 0.003, in %: 8 bits 99.3 at 0.001, BWN 80.5 and 83.6 (76.6 at 0.01), TWN 90.2 and 89.6, TTQ 89.9
    and 89.7, PACT 96.7 and 93.6, DoReFa 2/2 54.0 and 62.1 (53.2 at 0.01), 1/2 53.7 at 0.003 (48.3 at 0.01). Fewer bits
    learn for longer, as the processor allowed."""
    told = (f"{what}, shortcuts 8 bits: ResNet-20 fine-tuned for {epochs} epoch{'s' if epochs > 1 else ''} of 8000 "
            "CIFAR-10 images, moved and mirrored, after its own float answers; 500 test images")
    training = Training(resnet20, method, 0, epochs, IMAGENET, Adam(rate), batch_size=64, schedule=WarmedCosine(0.05),
                        moves=4, held_out=2000, distilled=0.7, shortcuts=True)
    return _row(f"{method}-resnet20", told, source, published or {}, training, 30 + 40 * epochs, "cifar10:DIR",
                "resnet20-12fca82f.th")


def _signs(method: str, what: str, source: str, published: Mapping[str, float]) -> Row:
    """On training images 8000 to 9999, after a float network of 3 epochs (58.7 % there) and 2 epochs of signs, XNOR-Net
    has 47.0 % at a rate of 0.001 and 46.0 % at 0.003, BNN 45.7 % at 0.003, which was chosen when a part of the hidden
    layers still had 8 bits by mistake (47.4 and 47.6 %, BNN 44.8 and 46.0 %): one point is one standard error."""
    told = (f"{what}: a VGG-small of a quarter of the width, one convolution less, for 6 epochs of 8000 CIFAR-10 "
            "images, moved and mirrored, from a float network of 3 epochs; 500 test images (the papers: 500 epochs or "
            "so of 50 000 images at full width)")
    return _row(f"{method}-vgg", told, source, published,
                Training(vgg_signs, method, 3, 6, IMAGENET, Adam(3e-3), batch_size=64, schedule=WarmedCosine(0.05),
                         moves=2, held_out=2000, before_pools=BEFORE_POOLS), 330, "cifar10:DIR")


_LSQ = "Esser et al. 2020, arXiv:1902.08153 (ImageNet only: a small analogue)"
_DOREFA = "Zhou et al. 2016, arXiv:1606.06160 (SVHN and ImageNet: a small analogue)"
_XNOR = "Rastegari et al. 2016, arXiv:1603.05279 (ImageNet, CIFAR-10: a small analogue)"
_TWN = "Li et al. 2016, arXiv:1605.04711, Table 2"
_INQ = "Zhou et al. 2017, arXiv:1702.03044 (ImageNet only: a small analogue)"
_LOGNET = "Miyashita et al. 2016, arXiv:1603.01025 (ImageNet only: a small analogue)"
_HWGQ = "Cai et al. 2017, arXiv:1702.00953 (ImageNet, CIFAR-10: a small analogue)"
_LQ = "Zhang et al. 2018, arXiv:1807.10029 (ImageNet, CIFAR-10: a small analogue)"
_QNN = "Hubara et al. 2016, arXiv:1609.07061 (ImageNet only: a small analogue)"

ROWS = (
    Row("lab-qat-mnist", "the QAT lab: 20 epochs in float, 20 in 8 bits; accuracy around the switch",
        "S4, the lab's printed run (its network is lost: here 784-256-10)",
        {"float": 95.17, "after one epoch": 93.80}, "mnist:DIR", lab, "lab-int8", 150),
    _lenet("qat-w8a8", "8 bits", "Jacob et al. 2018, arXiv:1712.05877 (a small analogue)"),
    *(_lenet(f"lsq-w{bits}a{bits}", f"learned steps, {bits} bits", _LSQ) for bits in (8, 4, 3, 2)),
    _lenet("pact-w4a4", "learned clipping, 4 bits", "Choi et al. 2018, arXiv:1805.06085 (a small analogue)"),
    *(_lenet(f"dorefa-w{w}a{a}", f"DoReFa, {w}-bit weights, {a}-bit activations", _DOREFA)
      for w, a in ((1, 1), (1, 2), (2, 2), (1, 4))),
    _lenet("bwn", "binary weights", _XNOR),
    _lenet("xnor", "binary weights and activations, without K", _XNOR, lenet_tanh),
    _row("xnor-k-lenet", "binary weights and activations, with K in the simulation (the program leaves it out), "
         "LeNet 20-50-500-10 with batch norm on MNIST", _XNOR, {},
         Training(lenet_tanh, "xnor", 1, 2, scaling_maps=True), 150),
    _lenet("ttq", "trained ternary weights", "Zhu et al. 2016, arXiv:1612.01064 (CIFAR-10: a small analogue)"),
    *(_lenet(f"inq-w{bits}a8", f"INQ, weights of 0 and powers of two in {bits} bits", _INQ) for bits in (5, 4, 3)),
    _lenet("lognet-w5a4", "LogNet, powers of two: weights of 5 (linear layers 4) bits, activations of 4", _LOGNET),
    _lenet("hwgq-w1a2", "HWGQ, binary weights, activations of 2 bits", _HWGQ),
    _lenet("lq-w2a2", "LQ-Nets, learned bases, 2-bit weights and activations", _LQ),
    _qnn(1), _qnn(2),
    _row("binary-connect-mlp", "BinaryConnect, deterministic: 784-1024-1024-1024-10 on MNIST (the paper: 2048 wide)",
         "Courbariaux et al. 2015, arXiv:1511.00363, Table 2", {"float": 98.70, "few bits": 98.71},
         Training(mlp_norm, "binary-connect", 0, 4, loss=squared_hinge), 240),
    _row("bnn-mlp", "BNN: 784-1024-1024-1024-10 on MNIST (the paper: 4096 wide, 1000 epochs)",
         "Courbariaux et al. 2016, arXiv:1602.02830, Table 1", {"few bits": 99.04},
         Training(mlp_tanh, "bnn", 0, 4, loss=squared_hinge), 240),
    _row("twn-lenet-twn", "ternary weights: 32C5-MP2-64C5-MP2-512FC on MNIST", _TWN,
         {"float": 99.41, "few bits": 99.35}, Training(lenet_twn, "twn", 1, 2), 120),
    _row("bwn-lenet-twn", "binary weights: 32C5-MP2-64C5-MP2-512FC on MNIST", _TWN,
         {"float": 99.41, "few bits": 99.05}, Training(lenet_twn, "bwn", 1, 2), 120),
    _resnet("qat-w8a8", "8 bits", "Jacob et al. 2018, arXiv:1712.05877 (a small analogue)", 1, 1e-3),
    *(_resnet(f"lsq-w{bits}a{bits}", f"learned steps, {bits} bits", _LSQ, epochs)
      for bits, epochs in ((8, 1), (4, 1), (3, 1), (2, 6))),
    _resnet("bwn", "binary weights", _XNOR, 5),
    _resnet("twn", "ternary weights", "Li et al. 2016, arXiv:1605.04711 (VGG on CIFAR-10: a small analogue)", 2, 1e-3),
    _resnet("ttq", "trained ternary weights", "Zhu et al. 2016, arXiv:1612.01064, Table 1, trained for 160 epochs", 2,
            1e-3, {"float": 91.77, "few bits": 91.13}),
    _resnet("pact-w4a4", "learned clipping, 4 bits", "Choi et al. 2018, arXiv:1805.06085, trained for 200 epochs", 2,
            1e-3, {"float": 91.6, "few bits": 91.3}),
    *(_resnet(f"dorefa-w{w}a{a}", f"DoReFa, {w}-bit weights, {a}-bit activations", _DOREFA, 4)
      for w, a in ((1, 1), (1, 2), (2, 2), (1, 4))),
    _signs("xnor", "binary weights and activations, without K, first and last layer 8 bits",
           "Rastegari et al. 2016, arXiv:1603.05279 (10.17 % error on CIFAR-10)", {"few bits": 89.83}),
    _signs("bnn", "BNN, every weight and hidden activation a sign",
           "Courbariaux et al. 2016, arXiv:1602.02830, Table 1 (10.15 % error on CIFAR-10)", {"few bits": 89.85}),
)

"""Small networks as methods of few bits train them: batch norm behind every layer they quantize."""

import itertools
from collections.abc import Callable

from torch import nn


def lenet_norm(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """An untrained 20C5-MP2-50C5-MP2-500FC-10 with batch norm behind all layers but the last, 431 650 parameters.

    forward: float32 [N, 1, 28, 28] -> logits float32 [N, 10]. activation: behind each batch norm; a hard tanh for
    signs, which a ReLU would leave no choice. Caffe's LeNet otherwise.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5, bias=False), nn.BatchNorm2d(20), activation(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5, bias=False), nn.BatchNorm2d(50), activation(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500, bias=False), nn.BatchNorm1d(500), activation(),
        nn.Linear(500, 10))


def lenet_tanh() -> nn.Sequential:
    """`lenet_norm` with hard tanh, for networks of signs."""
    return lenet_norm(nn.Hardtanh)


def lenet_signs() -> nn.Sequential:
    """`lenet_tanh` with batch norm behind the last layer too, as BNN and QNN have it: a last layer of signs without a
    scale gives logits as large as it is wide, which no loss on them can lead."""
    return nn.Sequential(*list(lenet_tanh())[:-1], nn.Linear(500, 10, bias=False), nn.BatchNorm1d(10))


def mlp_norm(activation: Callable[[], nn.Module] = nn.ReLU, width: int = 1024) -> nn.Sequential:
    """An untrained 784-width-width-width-10 with batch norm behind every layer, the last included.

    forward: float32 [N, 1, 28, 28] -> logits float32 [N, 10]. BinaryConnect's has a width of 2048, BNN's of 4096.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    sizes = (784, width, width, width)
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10, bias=False), nn.BatchNorm1d(10))


def mlp_tanh() -> nn.Sequential:
    """`mlp_norm` with hard tanh, for networks of signs."""
    return mlp_norm(nn.Hardtanh)


def lab_mlp() -> nn.Sequential:
    """An untrained 784-256-10, as an exercise of the QAT lab may have it (the lab's own sizes are lost)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def depthwise_cifar() -> nn.Sequential:
    """An untrained network of depthwise separable convolutions, 3-16-32-64-64-128, for CIFAR-10, 19 114 parameters.

    forward: float32 [N, 3, 32, 32] -> logits float32 [N, 10]. MobileNetV1's blocks (Howard et al. 2017,
    arXiv:1704.04861) at the size of CIFAR-10's images.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for inner, outer, stride in ((16, 32, 2), (32, 64, 2), (64, 64, 1), (64, 128, 2)):
        layers += [nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False),
                   nn.BatchNorm2d(inner), nn.ReLU(),
                   nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))

"""The two VGG-like networks on which few-bit training is measured, for CIFAR-10."""

from torch import nn


def _features() -> list[nn.Module]:
    """2×128C3-MP2-2×256C3-MP2-2×512C3-MP2, flattened: [N, 3, 32, 32] -> [N, 8192]."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (128, 256, 512):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return [*layers, nn.Flatten()]


def vgg7() -> nn.Sequential:
    """An untrained VGG-7, with a hidden layer of 1024: 12 979 082 parameters.

    forward: float32 [N, 3, 32, 32] -> logits float32 [N, 10].
    Source: Li et al. 2016, arXiv:1605.04711, §3 (92.88 % in float, 92.56 % ternary).
    """
    hidden = [nn.Linear(8192, 1024, bias=False), nn.BatchNorm1d(1024), nn.ReLU()]
    return nn.Sequential(*_features(), *hidden, nn.Linear(1024, 10))


def vgg_small() -> nn.Sequential:
    """An untrained VGG-small, one linear layer behind the convolutions: 4 660 106 parameters.

    forward: float32 [N, 3, 32, 32] -> logits float32 [N, 10].
    Source: Cai et al. 2017 (HWGQ), arXiv:1702.00953, §6; Zhang et al. 2018 (LQ-Nets), arXiv:1807.10029.
    """
    return nn.Sequential(*_features(), nn.Linear(8192, 10))


BEFORE_POOLS = ("0", "7", "14")
"""Convolutions of `vgg_signs` whose results a pool reads."""


def vgg_signs(width: int = 32) -> nn.Sequential:
    """An untrained VGG-small for signs, a quarter as wide, with one convolution before the first pool: 298 676
    parameters.

    forward: float32 [N, 3, 32, 32] -> logits float32 [N, 10]. Blocks in the order of BNN and XNOR-Net: convolution,
    pool, batch norm, hard tanh; a pool behind signs would leave next to nothing but 1. Batch norm behind the last
    layer too, as BNN has it. Sources: Courbariaux et al. 2016, arXiv:1602.02830, §2.1 and Rastegari et al. 2016,
    arXiv:1603.05279, §3.2 (both: six convolutions of 128 to 512 channels, and three linear layers in BNN).
    """
    layers: list[nn.Module] = []
    channels = 3
    for multiple, count in ((1, 1), (2, 2), (4, 2)):
        for number in range(count):
            layers.append(nn.Conv2d(channels, multiple * width, 3, padding=1, bias=False))
            channels = multiple * width
            pool = [nn.MaxPool2d(2)] if number == count - 1 else []
            layers += [*pool, nn.BatchNorm2d(channels), nn.Hardtanh()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, 10, bias=False), nn.BatchNorm1d(10))

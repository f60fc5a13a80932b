"""The LeNet of the ternary weight networks, for MNIST."""

from torch import nn


def lenet_twn() -> nn.Sequential:
    """An untrained 32C5-MP2-64C5-MP2-512FC with live batch norm, of 583 242 parameters; layers at 0, 4, 9, 12.

    forward: float32 [N, 1, 28, 28] -> logits float32 [N, 10], no padding. The paper trains it with a hinge loss.
    Source: Li et al. 2016, arXiv:1605.04711, §3 (99.41 % in float, 99.35 % ternary).
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 512),
        nn.BatchNorm1d(512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )

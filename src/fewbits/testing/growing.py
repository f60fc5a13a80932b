"""A random network under construction."""

import numpy as np
import torch
from torch import nn


class Growing:
    """Its random numbers and the shape so far."""

    def __init__(self, rng: np.random.Generator, channels: int, size: tuple[int, ...]):
        self.rng, self.channels, self.size = rng, channels, size

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def between(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))


def follow(g: Growing, layer: nn.Module) -> None:
    """Takes the shape from what the layer gives."""
    with torch.no_grad():
        shape = layer.eval()(torch.zeros(2, g.channels, *g.size)).shape
    g.channels, g.size = shape[1], tuple(shape[2:])

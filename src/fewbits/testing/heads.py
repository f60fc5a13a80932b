"""How random networks end."""

from torch import nn

from fewbits.testing.convolutions import activation
from fewbits.testing.growing import Growing


def pooled(g: Growing) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(g.channels, g.between(2, 11)))


def log_classes(g: Growing) -> nn.Module:
    return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(g.channels, g.between(2, 40)),
                         nn.LogSoftmax(-1))


def flat(g: Growing) -> nn.Module:
    width = g.between(2, 9)
    return nn.Sequential(nn.Flatten(), nn.Linear(g.channels * g.size[0] * g.size[1], width), activation(g),
                         nn.Linear(width, g.between(2, 5), bias=g.pick(True, False)))


def convolved(g: Growing) -> nn.Module:
    return nn.Conv2d(g.channels, g.between(1, 5), 1, bias=g.pick(True, False))

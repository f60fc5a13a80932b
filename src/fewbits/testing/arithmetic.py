"""Parts of random networks: functions of one number, and sums and products of two branches."""

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.program.functions import two_pieces
from fewbits.program.unary import EVERYWHERE, UNARY
from fewbits.testing.convolutions import activation, conv_layer
from fewbits.testing.growing import Growing


class Residual(nn.Module):
    """x + f(x), f(x) + x, with or without an activation behind."""

    def __init__(self, g: Growing):
        super().__init__()
        self.branch, self.after = nn.Sequential(conv_layer(g, keep=True), activation(g)), activation(g)
        self.first = g.pick(True, False)

    def forward(self, x):
        return self.after(x + self.branch(x) if self.first else self.branch(x) + x)


class AddBroadcast(nn.Module):
    """Plus a constant per channel, a number, or the mean of each channel."""

    def __init__(self, g: Growing):
        super().__init__()
        self.register_buffer("shift", torch.from_numpy(g.rng.normal(size=(g.channels, 1, 1))).float())
        self.kind = g.pick("shift", "number", "mean")

    def forward(self, x):
        match self.kind:
            case "shift":
                return x + self.shift
            case "number":
                return x + 0.37
            case _:
                return x + x.mean((2, 3), keepdim=True)


class Combine(nn.Module):
    """Two branches multiplied, subtracted, or one gating the other."""

    def __init__(self, g: Growing):
        super().__init__()
        self.branch, self.kind = conv_layer(g, keep=True), g.pick("mul", "sub", "gate", "squeeze")

    def forward(self, x):
        match self.kind:
            case "mul":
                return x * self.branch(x)
            case "sub":
                return self.branch(x) - x
            case "gate":
                return x * self.branch(x).sigmoid()
            case _:
                return x * F.hardsigmoid(x.mean((2, 3), keepdim=True))


class Choose(nn.Module):
    """Two branches compared or divided, a product added, constants chosen between."""

    def __init__(self, g: Growing):
        super().__init__()
        self.branch = conv_layer(g, keep=True)
        self.kind = g.pick("larger", "smaller", "bound", "share", "product", "constants", "largest")
        self.limit = nn.Parameter(torch.from_numpy(g.rng.normal(size=(g.channels, 1, 1))).float())

    def forward(self, x):
        match self.kind:
            case "larger":
                return torch.maximum(x, self.branch(x))
            case "smaller":
                return torch.minimum(self.branch(x), x.mean((2, 3), keepdim=True)).relu()
            case "bound":
                return torch.maximum(x, self.limit)
            case "share":
                return self.branch(x) / (x.abs() + 0.5)
            case "product":
                return torch.addcmul(x, self.branch(x), x, value=0.3)
            case "constants":
                return torch.maximum(self.branch(x), torch.zeros_like(x)) + torch.ones_like(x)
            case _:
                return x * self.branch(x).amax((2, 3), keepdim=True).sigmoid()


def function(g: Growing) -> nn.Module:
    return g.pick(Function(g), Function(g), nn.PReLU(), nn.PReLU(g.channels), Scaled(g))


class Function(nn.Module):
    """Any row of the table of functions of one number; behind a sigmoid where it is not defined everywhere."""

    def __init__(self, g: Growing):
        super().__init__()
        self.row = g.pick(*(row for row in UNARY if row.call is not two_pieces))  # which folding makes
        self.given, (self.low, self.high) = g.pick(*self.row.examples), self.row.domain

    def forward(self, x):
        inside = x if self.row.domain == EVERYWHERE else x.sigmoid() * (self.high - self.low) + self.low
        return self.row.call(inside, **self.given)


class Scaled(nn.Module):
    """Arithmetic with numbers and constants."""

    def __init__(self, g: Growing):
        super().__init__()
        self.kind = g.pick("mul", "div", "rsub", "constant", "square")
        self.register_buffer("factor", torch.from_numpy(g.rng.normal(size=(g.channels, 1, 1))).float())

    def forward(self, x):
        match self.kind:
            case "mul":
                return 0.7 * x
            case "div":
                return x / 1.7
            case "rsub":
                return 1 - x
            case "constant":
                return x * self.factor
            case _:
                return x**2

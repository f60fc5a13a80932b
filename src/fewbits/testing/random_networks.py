"""Random networks over every operator of the table."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fewbits.testing.arithmetic import AddBroadcast, Combine, Residual, function
from fewbits.testing.convolutions import Deep, Lines, conv, grow, lone_norm
from fewbits.testing.growing import Growing
from fewbits.testing.heads import convolved, flat, pooled
from fewbits.testing.moves import Concat, Rearrange, Shuffle, pool
from fewbits.testing.sequences import Attention, ClassToken, Tokens

Make = Callable[[Growing], nn.Module | None]

_STEPS: tuple[Make, ...] = (conv, conv, conv, lone_norm, Residual, Residual, AddBroadcast, Concat, Shuffle, Rearrange,
                            pool, Combine, Combine, function, function, grow, Attention, Lines, Deep)
_HEADS: tuple[Callable[[Growing], nn.Module], ...] = (pooled, flat, convolved, Tokens, ClassToken)


def random_network(seed: int) -> tuple[nn.Module, torch.Tensor]:
    """A network of random operators, sizes, weights and weight scales, and a batch of inputs for it."""
    rng = np.random.default_rng(seed)
    channels, size = int(rng.integers(1, 7)), tuple(int(s) for s in rng.integers(5, 14, 2))
    generator = torch.Generator().manual_seed(seed)
    spread = float(np.exp(rng.normal()))
    example = torch.randn(int(rng.integers(2, 5)), channels, *size, generator=generator) * spread
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _RandomNetwork(Growing(rng, channels, size)).eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim > 1:
            tensor.mul_(float(np.exp(rng.normal(0, 0.7))))
    return net, example


class _RandomNetwork(nn.Module):
    def __init__(self, g: Growing):
        super().__init__()
        made = [step for step in (g.pick(*_STEPS)(g) for _ in range(g.between(2, 7))) if step is not None]
        self.steps = nn.ModuleList(made)
        self.head = g.pick(*_HEADS)(g)
        self.returns = g.pick("logits", "logits", "dict", "tuple")

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        logits = self.head(x)
        match self.returns:
            case "logits":
                return logits
            case "dict":
                return {"logits": logits, "features": [x]}
            case _:
                return logits, x

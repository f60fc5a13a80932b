"""Random networks over every operator of the table."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fewbits.program.ops import RECORDS
from fewbits.testing.arithmetic import AddBroadcast, Choose, Combine, Residual, function
from fewbits.testing.convolutions import Deep, Lines, conv, conv_layer, grow, lone_norm, row_norm
from fewbits.testing.growing import Growing, follow
from fewbits.testing.heads import convolved, flat, log_classes, pooled
from fewbits.testing.moves import Concat, Mix, Rearrange, Shuffle, adaptive_pool, pool
from fewbits.testing.sequences import Attention, ClassToken, Sentences, Tokens, Words

Make = Callable[[Growing], nn.Module | None]

_LEAST = 5
"""Height and width of an image that every layer of a record takes."""

_STEPS: tuple[Make, ...] = (conv, conv, conv, lone_norm, Residual, Residual, AddBroadcast, Concat, Shuffle, Rearrange,
                            pool, pool, Combine, Combine, function, function, grow, Attention, Lines, Deep, row_norm,
                            Choose, Choose, Mix, Mix, adaptive_pool)
_HEADS: tuple[Callable[[Growing], nn.Module], ...] = (pooled, flat, convolved, log_classes, Tokens, ClassToken)


def random_network(seed: int) -> tuple[nn.Module, torch.Tensor]:
    """A network of random operators, sizes, weights and weight scales, and a batch of images for it."""
    rng = np.random.default_rng(seed)
    channels, size = int(rng.integers(1, 7)), tuple(int(s) for s in rng.integers(5, 14, 2))
    generator = torch.Generator().manual_seed(seed)
    spread = float(np.exp(rng.normal()))
    example = torch.randn(int(rng.integers(2, 5)), channels, *size, generator=generator) * spread
    return _made(seed, rng, lambda: _RandomNetwork(Growing(rng, channels, size))), example


def random_layers_network(seed: int) -> tuple[nn.Module, torch.Tensor]:
    """A network of the layers that the records of operators name (program/ops), so that a new operator needs no line
    here, and a batch of images for it."""
    rng = np.random.default_rng(seed)
    channels, size = int(rng.integers(1, 5)), tuple(int(s) for s in rng.integers(_LEAST, 10, 2))
    example = torch.randn(int(rng.integers(2, 4)), channels, *size, generator=torch.Generator().manual_seed(seed))
    return _made(seed, rng, lambda: _recorded(Growing(rng, channels, size))), example


def _recorded(g: Growing) -> nn.Module:
    offered = [record.layer for record in RECORDS.values() if record.layer is not None]
    steps: list[nn.Module] = []
    for _ in range(g.between(2, 5)):
        if min(g.size) >= _LEAST:
            steps += [conv_layer(g, keep=True), g.pick(*offered)(g.channels, *g.size)]
            follow(g, steps[-1])
    return nn.Sequential(*steps, pooled(g))


def random_language_network(seed: int) -> tuple[nn.Module, torch.Tensor]:
    """The same behind an embedding, and a batch of row numbers, int64, for it."""
    rng = np.random.default_rng(seed)
    rows, length, width = (int(n) for n in rng.integers((3, 2, 2), (20, 8, 8)))
    generator = torch.Generator().manual_seed(seed)
    example = torch.randint(0, rows, (int(rng.integers(2, 5)), length), generator=generator)
    return _made(seed, rng, lambda: nn.Sequential(
        Words(rows, width), _RandomNetwork(Growing(rng, 1, (length, width))))), example


def random_masked_network(seed: int) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A network of sentences, and a batch for it: row numbers, and 1 where a token is there."""
    rng = np.random.default_rng(seed)
    rows, length, width, count = (int(n) for n in rng.integers((3, 2, 2, 2), (20, 8, 8, 5)))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, rows, (count, length), generator=generator)
    keep = (torch.rand(count, length, generator=generator) < 0.7).long()
    keep[:, 0] = 1
    return _made(seed, rng, lambda: Sentences(Growing(rng, width, (length,)), rows, length, width)), (ids, keep)


def _made(seed: int, rng: np.random.Generator, make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make().eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim > 1:
            tensor.mul_(float(np.exp(rng.normal(0, 0.7))))
    return net


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

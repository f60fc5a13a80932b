"""Two small networks, taken all the way to a program."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program import requantize
from fewbits.program.ops import Conv
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.simulation import Simulation


@dataclass(frozen=True)
class Case:
    """A lowered network and inputs for it."""

    program: Program
    simulation: Simulation
    batches: list[Any]


class Residual(nn.Module):
    """Convolutions, a batch norm, a residual sum, a linear head: float32 [N, 2, 6, 6] → [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.pool = nn.Conv2d(6, 6, 3, padding=1), nn.MaxPool2d(2)
        self.head = nn.Linear(6 * 9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv1(x)))
        x = F.relu(self.conv2(x) + x)
        return self.head(self.pool(x).flatten(1))


class Rows(nn.Module):
    """An embedding and a linear layer: int64 [N, 3] → [N, 3, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(7, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(x))


class Everything(nn.Module):
    """Every operator of a network as it is captured but batch norm and embedding: float32 [N, 4, 8, 8] →
    {logits, features, more}."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.same = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.average, self.one = nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)
        self.drop, self.head, self.token = nn.Dropout(), nn.Linear(8, 5), nn.Linear(8, 3, bias=False)
        self.shift = nn.Parameter(torch.randn(8, 1, 1))
        self.nearest = nn.Upsample(scale_factor=2)
        self.mix, self.shuffle = nn.ChannelShuffle(2), nn.PixelShuffle(2)
        self.slope, self.norm, self.groups = nn.PReLU(8), nn.LayerNorm(8), nn.GroupNorm(2, 8)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        x = F.relu(self.conv(x))
        x = F.relu6(self.same(x) + x)
        first, second = x.chunk(2, 1)
        x = torch.cat([second, first], 1) + self.shift
        x = F.hardtanh(F.max_pool2d(x, 2), -0.5, 0.7)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().reshape(n, c, h, w)
        x = F.pad(x, (0, 2, 1, 0))[:, :, :, :5].float()
        tokens = self.average(x).flatten(2).permute(0, 2, 1)
        rows = self.norm(self.slope(x).sigmoid().flatten(2).transpose(1, 2))
        seen = (rows @ rows.transpose(1, 2)).softmax(-1)
        gate = self.mix(x).mean((2, 3))[:, :1, None, None].expand(-1, 4, -1, -1)
        grown = self.nearest(x)[:, 4:] - self.nearest(x)[:, :4] * gate
        more = [seen, self.shuffle(grown.roll(1, 2)) / 1.5]
        grouped = self.groups(x)
        more += [torch.maximum(grouped, x.flip(3)).amax(2).log_softmax(-1)]
        logits = self.head(self.drop(self.one(x).flatten(1)))
        return {"logits": logits, "features": [self.token(tokens[:, 0]), x.mean((2, 3))], "more": more}


def lowered(net: nn.Module, example: torch.Tensor, recipe: str = "w8a8", profile: str = "onnxruntime",
            folded: bool = True) -> Case:
    model = capture(net.eval(), example)
    if folded:
        model = fold(model)
    batches = [example, 0.7 * example.flip(0)]
    simulation = calibrate(model, plan(model, recipe), batches)
    return Case(lower(simulation, profile), simulation, batches)


def made(build: type[nn.Module], *shape: int) -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(), torch.randn(*shape)


def shifted(program: Program, name: str, steps: int) -> Program:
    """The program with one more step of its own grid at every code of the convolution `name`."""
    (node,) = (node for node in program.nodes if node.name == name)
    assert isinstance(node, Conv)
    assert node.bias is not None
    multiplier = requantize.dot_multiplier(program.encoding(node.input), node.weight.encoding,
                                           program.encoding(name))
    bias = node.bias + np.trunc(steps / multiplier).astype(node.bias.dtype)  # never more than `steps`
    nodes = tuple(replace(node, bias=bias) if other is node else other for other in program.nodes)
    return Program(program.profile, program.inputs, nodes, program.values, program.structure)

"""Trained networks of four other kinds than docs/ptq.md's, each with its data: a transformer, a detector with two
outputs, a denoiser, a recurrent network.

The transformer has weights of its own (shared/data/lm). The others are small, and trained here on real digits and
pictures in a minute each, once (build/ptq_default/).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.ptq import SHARED
from fewbits.data.sets import load
from fewbits.data.weights import apply_weights, load_weights
from fewbits.tasks.char_gpt import char_gpt
from fewbits.tasks.training import initialised

FOLDER = Path("build/ptq_default")
Outputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """name; net: trained, in evaluation mode; calibration, more: inputs to calibrate on, and those from which other
    seeds draw as many; test: inputs; batch: inputs at a time; classes: from (outputs, float outputs), the class of each
    decision: int64 [decisions], None where the network decides nothing."""

    name: str
    net: nn.Module
    calibration: torch.Tensor
    more: torch.Tensor
    test: torch.Tensor
    batch: int
    classes: Callable[[Outputs, Outputs], torch.Tensor] | None

    def draw(self, seed: int) -> list[torch.Tensor]:
        """The calibration batches of a seed; 0 is the fixed set."""
        if not seed:
            return list(self.calibration.split(self.batch))
        chosen = torch.randperm(len(self.more), generator=torch.Generator().manual_seed(seed))
        return list(self.more[chosen[:len(self.calibration)]].split(self.batch))


def likeliest(outputs: Outputs, of_float: Outputs) -> torch.Tensor:
    """The class of the largest number along the last axis."""
    return outputs[0].argmax(-1).reshape(-1)


class Detector(nn.Module):
    """Pictures [N, 1, 32, 32] -> (class logits [N, 11, 8, 8], the last one for nothing; boxes [N, 4, 8, 8])."""

    def __init__(self) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

        self.body = nn.Sequential(*layer(1, 16, 2), *layer(16, 32, 1), *layer(32, 48, 2), *layer(48, 48, 1))
        self.kind, self.box = nn.Conv2d(48, 11, 1), nn.Conv2d(48, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x)
        return self.kind(x), self.box(x)


class Denoiser(nn.Module):
    """A noisy picture [N, 3, 32, 32] -> the picture: a chain of convolutions that gives the noise (Zhang et al. 2017,
    arXiv:1608.03981, with 5 layers of 32 channels)."""

    def __init__(self) -> None:
        super().__init__()
        middle = [part for _ in range(3) for part in (nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32),
                                                      nn.ReLU())]
        self.noise = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), *middle, nn.Conv2d(32, 3, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.noise(x)


class RowReader(nn.Module):
    """An LSTM over the 28 rows of a digit, its gates two linear layers, as one writes it by hand: pictures
    [N, 28, 28] -> logits [N, 10]. (ONNX Runtime and NNCF leave nn.LSTM itself in float.)"""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.given, self.kept, self.head = nn.Linear(28, 4 * width), nn.Linear(width, 4 * width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        entry, leaving, update, out = self.given(x[:, 0]).chunk(4, 1)
        cell = entry.sigmoid() * update.tanh()
        hidden = out.sigmoid() * cell.tanh()
        for step in range(1, 28):
            entry, leaving, update, out = (self.given(x[:, step]) + self.kept(hidden)).chunk(4, 1)
            cell = leaving.sigmoid() * cell + entry.sigmoid() * update.tanh()
            hidden = out.sigmoid() * cell.tanh()
        return self.head(hidden)


def transformer() -> Case:
    net = char_gpt()
    apply_weights(net, load_weights(SHARED / "lm" / "chargpt_4x128_inhouse.pt"), "char_gpt")
    text = (SHARED / "lm" / "tinyshakespeare.txt").read_text()
    number = {character: place for place, character in enumerate(sorted(set(text)))}
    tokens = torch.tensor([number[character] for character in text])
    windows = tokens[:len(tokens) // 128 * 128].reshape(-1, 128)
    train, test = windows[:int(0.9 * len(windows))], windows[int(0.9 * len(windows)):]
    return Case("char_gpt, a transformer", net.eval(), train[:64], train[64:], test[:100], 16, likeliest)


def detector() -> Case:
    digits = load("digits")

    def scenes(of: Any, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pictures, the class of each place [N, 8, 8], the box of each place [N, 4, 8, 8] (0 where nothing is)."""
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.rand(count, 1, 32, 32, generator=generator) * 0.2, of.y
        kind, box = torch.full((count, 8, 8), 10), torch.zeros(count, 4, 8, 8)
        for picture in range(count):
            which, size = (int(torch.randint(high, (1,), generator=generator)) for high in (len(of), 3))
            side = (8, 12, 16)[size]
            left, top = (int(v) for v in torch.randint(33 - side, (2,), generator=generator))
            digit = F.interpolate(of.x[which][None].float() / 16, (side, side), mode="bilinear")[0, 0]
            x[picture, 0, top:top + side, left:left + side] += digit
            row, column = (top + side // 2) // 4, (left + side // 2) // 4
            kind[picture, row, column] = y[which]
            box[picture, :, row, column] = torch.tensor([left, top, left + side, top + side]) / 32
        return (x - 0.2) / 0.3, kind, box

    def loss(net: nn.Module, x: torch.Tensor, kind: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        logits, boxes = net(x)
        there = (kind != 10)[:, None]
        weight = torch.tensor([1.0] * 10 + [0.1])
        return F.cross_entropy(logits, kind, weight) + 5 * ((boxes - box).abs() * there).sum() / there.sum()

    def found(outputs: Outputs, of_float: Outputs) -> torch.Tensor:
        """The class at the place where the float network is surest of something."""
        surest = of_float[0][:, :10].amax(1).flatten(1).argmax(1)
        return outputs[0][:, :10].flatten(2)[torch.arange(len(surest)), :, surest].argmax(1)

    train = scenes(digits.train, 4000, 0)
    net = _trained("detector", Detector, loss, train, epochs=8)
    return Case("detector, two outputs", net, train[0][:256], train[0][256:], scenes(digits.test, 500, 1)[0], 64, found)


def denoiser() -> Case:
    pictures = load(f"cifar10:{SHARED / 'cifar10'}")

    def noisy(of: Any, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        clean = of.x[:count].float() / 255
        clean = clean if clean.shape[1] == 3 else clean.movedim(3, 1)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)) * 25 / 255
        return clean + noise, clean

    def loss(net: nn.Module, x: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(net(x), clean)

    train = noisy(pictures.train, 4000, 0)
    net = _trained("denoiser", Denoiser, loss, train, epochs=3)
    return Case("denoiser", net, train[0][:128], train[0][128:], noisy(pictures.test, 250, 1)[0], 32, None)


def recurrent() -> Case:
    digits = load(f"mnist:{SHARED / 'mnist'}")

    def rows(of: Any, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return (of.x[:count].float().reshape(count, 28, 28) / 255 - 0.1307) / 0.3081, of.y[:count]

    def loss(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(net(x), y)

    train = rows(digits.train, 10000)
    net = _trained("recurrent", RowReader, loss, train, epochs=4)
    return Case("LSTM over rows", net, train[0][:512], train[0][512:], rows(digits.test, 2000)[0], 64, likeliest)


CASES: dict[str, Callable[[], Case]] = {
    "char_gpt": transformer, "detector": detector, "denoiser": denoiser, "recurrent": recurrent}


def _trained(name: str, build: Callable[[], nn.Module], loss: Callable[..., torch.Tensor],
             data: tuple[torch.Tensor, ...], epochs: int) -> nn.Module:
    """The network of the file that an earlier run left, or trained by Adam, seed 0."""
    net, path = initialised(build, 0), FOLDER / f"{name}.safetensors"
    if path.exists():
        net.load_state_dict(load_file(path))
        return net.eval()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    order = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - epoch / epochs)
        for part in _shuffled(data, 64, order):
            optimizer.zero_grad()
            loss(net, *part).backward()
            optimizer.step()
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), path)
    return net.eval()


def _shuffled(data: tuple[torch.Tensor, ...], size: int, order: torch.Generator) -> Iterator[tuple[torch.Tensor, ...]]:
    for chosen in torch.randperm(len(data[0]), generator=order).split(size):
        yield tuple(tensor[chosen] for tensor in data)

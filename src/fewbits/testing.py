"""Conformance: random networks over every operator, and the one check that a program must pass."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fewbits.numerics.conformance import boundary_grid as boundary_grid
from fewbits.numerics.conformance import check_format as check_format
from fewbits.program.program import Program
from fewbits.report.engines import EngineAgreement, agreement

Make = Callable[["_Growing"], nn.Module | None]


def differences(program: Program, inputs: dict[str, np.ndarray]) -> list[EngineAgreement]:
    """Every engine that must equal the reference and does not, at outputs and at every value: torch,
    onnxruntime with integer operators at both optimisation extremes, and QDQ at the default."""
    batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
    return [row for row in agreement(program, [batch], every_value=True) if row.exact and row.differing]


def random_network(seed: int) -> tuple[nn.Module, torch.Tensor]:
    """A network of random operators, sizes, weights and weight scales, and a batch of inputs for it."""
    rng = np.random.default_rng(seed)
    channels, size = int(rng.integers(1, 7)), tuple(int(s) for s in rng.integers(5, 14, 2))
    generator = torch.Generator().manual_seed(seed)
    spread = float(np.exp(rng.normal()))
    example = torch.randn(int(rng.integers(2, 5)), channels, *size, generator=generator) * spread
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _RandomNetwork(_Growing(rng, channels, size)).eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim > 1:
            tensor.mul_(float(np.exp(rng.normal(0, 0.7))))
    return net, example


class _Growing:
    """A network under construction: its random numbers and the shape so far."""

    def __init__(self, rng: np.random.Generator, channels: int, size: tuple[int, ...]):
        self.rng, self.channels, self.size = rng, channels, size

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def between(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))


class _RandomNetwork(nn.Module):
    def __init__(self, g: _Growing):
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


def _conv_layer(g: _Growing, keep: bool = False) -> nn.Module:
    """A convolution of any kind; keep: same shape out as in."""
    kernel = (g.between(1, min(4, g.size[0])), g.between(1, min(4, g.size[1])))
    groups = g.pick(1, 1, g.channels)
    out = g.channels if keep else groups * g.between(1, 4) if groups > 1 else g.between(1, 9)
    bias = g.pick(True, False)
    if keep:
        return nn.Conv2d(g.channels, out, kernel, padding="same", groups=groups, bias=bias)
    stride, padding = g.pick(1, 1, 2, (1, 2)), g.pick(0, 1, (1, 0))
    dilation = 2 if max(kernel) == 2 and min(g.size) > 4 and g.pick(True, False) else 1
    layer = nn.Conv2d(g.channels, out, kernel, stride, padding, dilation, groups, bias)
    _follow(g, layer)
    return layer


def _follow(g: _Growing, layer: nn.Module) -> None:
    """Takes the shape from what the layer gives."""
    with torch.no_grad():
        shape = layer.eval()(torch.zeros(2, g.channels, *g.size)).shape
    g.channels, g.size = shape[1], tuple(shape[2:])


def _norm(g: _Growing) -> nn.Module:
    norm = nn.BatchNorm2d(g.channels)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(g.rng.uniform(0.3, 1.7, tensor.shape)))
    norm.weight.data *= torch.from_numpy(g.rng.choice([-1.0, 1.0], g.channels)).float()
    return norm


def _activation(g: _Growing) -> nn.Module:
    return g.pick(nn.ReLU(), nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.7), nn.Identity())


def _conv(g: _Growing) -> nn.Module:
    layers = [_conv_layer(g)]
    if g.pick(True, False):
        layers.append(_norm(g))
    return nn.Sequential(*layers, _activation(g), nn.Dropout())


def _lone_norm(g: _Growing) -> nn.Module:
    return nn.Sequential(nn.ReLU(), _norm(g), _activation(g))


class _Residual(nn.Module):
    """x + f(x), f(x) + x, with or without an activation behind."""

    def __init__(self, g: _Growing):
        super().__init__()
        self.branch, self.after = nn.Sequential(_conv_layer(g, keep=True), _activation(g)), _activation(g)
        self.first = g.pick(True, False)

    def forward(self, x):
        return self.after(x + self.branch(x) if self.first else self.branch(x) + x)


class _AddBroadcast(nn.Module):
    """Plus a constant per channel, a number, or the mean of each channel."""

    def __init__(self, g: _Growing):
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


class _Concat(nn.Module):
    def __init__(self, g: _Growing):
        super().__init__()
        self.branch = _conv_layer(g, keep=True)
        g.channels *= 2

    def forward(self, x):
        return torch.cat([self.branch(x), x], 1)


class _Shuffle(nn.Module):
    """Split along the channels, swapped and joined; then interleaved."""

    def __init__(self, g: _Growing):
        super().__init__()
        self.kind = g.pick("chunk", "split")

    def forward(self, x):
        parts = x.chunk(2, 1) if self.kind == "chunk" else torch.split(x, [1, x.shape[1] - 1], 1)
        x = torch.cat(tuple(reversed(parts)), 1)
        n, c, h, w = x.shape
        groups = 2 if c % 2 == 0 else 1
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class _Rearrange(nn.Module):
    """Uneven padding, or every second pixel."""

    def __init__(self, g: _Growing):
        super().__init__()
        self.kind = g.pick("pad", "slice") if min(g.size) > 3 else "pad"
        _follow(g, self)

    def forward(self, x):
        return F.pad(x, (1, 0, 0, 2)) if self.kind == "pad" else F.relu(x)[:, :, ::2, 1:]


def _pool(g: _Growing) -> nn.Module | None:
    if min(g.size) < 3:
        return None
    pools = [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d((2, 3), 1),
             nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False)]
    pool = g.pick(*pools)
    _follow(g, pool)
    return pool


class _Combine(nn.Module):
    """Two branches multiplied, subtracted, or one gating the other."""

    def __init__(self, g: _Growing):
        super().__init__()
        self.branch, self.kind = _conv_layer(g, keep=True), g.pick("mul", "sub", "gate", "squeeze")

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


def _function(g: _Growing) -> nn.Module:
    return g.pick(nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.ELU(0.7),
                  nn.LeakyReLU(0.2), nn.PReLU(), nn.PReLU(g.channels), nn.Softplus(), nn.Mish(), _Scaled(g))


class _Scaled(nn.Module):
    """Arithmetic with numbers and constants."""

    def __init__(self, g: _Growing):
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


def _grow(g: _Growing) -> nn.Module:
    """Larger images: transposed convolutions, resizing, pixel shuffle."""
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(g.channels, g.between(1, 4), 3, g.pick(1, 2), 1, bias=g.pick(True, False)),
        nn.ConvTranspose2d(g.channels, g.channels, 2, 2, groups=g.channels),
        nn.Upsample(scale_factor=2), nn.Upsample(size=(7, 9)), nn.Upsample(scale_factor=2, mode="bilinear")]
    if g.channels % 4 == 0:
        layers.append(nn.PixelShuffle(2))
    layer = g.pick(*layers)
    _follow(g, layer)
    return layer


class _Attention(nn.Module):
    """Pixels attend to each other, with or without a causal mask."""

    def __init__(self, g: _Growing):
        super().__init__()
        self.query, self.value = nn.Linear(g.channels, g.channels), nn.Linear(g.channels, g.channels)
        self.norm, self.kind = nn.LayerNorm(g.channels), g.pick("plain", "masked", "sdpa", "causal")
        self.register_buffer("mask", torch.ones(g.size[0] * g.size[1], g.size[0] * g.size[1]).tril())

    def forward(self, x):
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        q, v = self.query(tokens), self.value(tokens)
        if self.kind in ("sdpa", "causal"):
            y = F.scaled_dot_product_attention(q, tokens, v, is_causal=self.kind == "causal")
        else:
            scores = q @ tokens.transpose(-2, -1)
            if self.kind == "masked":
                scores = scores.masked_fill(self.mask == 0, -torch.inf)
            y = scores.softmax(-1) @ v
        return y.transpose(1, 2).reshape(x.shape)


class _Lines(nn.Module):
    """Rows as sequences: convolutions and pools along one axis, stacked and taken apart again."""

    def __init__(self, g: _Growing):
        super().__init__()
        length = g.size[0] * g.size[1]
        self.conv = nn.Conv1d(g.channels, g.channels, g.pick(1, 3), padding="same")
        self.pool = g.pick(nn.MaxPool1d(3, 1, 1), nn.AvgPool1d(3, 1, 1), nn.Identity())
        self.axis, self.size, self.length = g.pick(1, 2), g.size, length

    def forward(self, x):
        y = self.pool(self.conv(x.flatten(2)))
        first, second = torch.stack([y, x.flatten(2)], self.axis).unbind(self.axis)
        return (first + second).unflatten(2, self.size)


class _Deep(nn.Module):
    """The image as the slices of a volume."""

    def __init__(self, g: _Growing):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, (2, 3, 3), padding=(0, 1, 1), bias=g.pick(True, False))
        _follow(g, self)

    def forward(self, x):
        x = F.pad(x, (0, 0, 0, 0, 0, 1)).unsqueeze(1)
        return self.conv(x).squeeze(1)


_STEPS: tuple[Make, ...] = (_conv, _conv, _conv, _lone_norm, _Residual, _Residual, _AddBroadcast, _Concat, _Shuffle,
                            _Rearrange, _pool, _Combine, _Combine, _function, _function, _grow, _Attention, _Lines,
                            _Deep)


def _pooled_head(g: _Growing) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(g.channels, g.between(2, 11)))


def _flat_head(g: _Growing) -> nn.Module:
    width = g.between(2, 9)
    return nn.Sequential(nn.Flatten(), nn.Linear(g.channels * g.size[0] * g.size[1], width), _activation(g),
                         nn.Linear(width, g.between(2, 5), bias=g.pick(True, False)))


def _conv_head(g: _Growing) -> nn.Module:
    return nn.Conv2d(g.channels, g.between(1, 5), 1, bias=g.pick(True, False))


class _TokenHead(nn.Module):
    """Pixels as a sequence: linear layers over three axes, a mean over the sequence, the first of it."""

    def __init__(self, g: _Growing):
        super().__init__()
        width = g.between(2, 7)
        self.first, self.act = nn.Linear(g.channels, width), _activation(g)
        self.second, self.kind = nn.Linear(width, 3), g.pick("mean", "first", "all")

    def forward(self, x):
        x = self.act(self.first(x.flatten(2).transpose(1, 2)))
        match self.kind:
            case "mean":
                return self.second(x.mean(1))
            case "first":
                return self.second(x[:, 0])
            case _:
                return self.second(x)


class _ClassTokenHead(nn.Module):
    """A learned token before the pixels, positions added, softmax over classes."""

    def __init__(self, g: _Growing):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, g.channels))
        self.place = nn.Parameter(torch.randn(1, g.size[0] * g.size[1] + 1, g.channels) * 0.1)
        self.head = nn.Linear(g.channels, 4)

    def forward(self, x):
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.place
        return self.head(tokens[:, 0]).softmax(-1)


_HEADS: tuple[Callable[[_Growing], nn.Module], ...] = (_pooled_head, _flat_head, _conv_head, _TokenHead,
                                                       _ClassTokenHead)

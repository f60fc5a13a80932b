"""Conformance: random networks over every operator, and the one check that a program must pass."""

import copy
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn

from fewbits.errors import RepairError
from fewbits.graph.capture import capture
from fewbits.graph.fold import fold
from fewbits.lower.lower import lower
from fewbits.numerics.conformance import boundary_grid as boundary_grid
from fewbits.numerics.conformance import check_format as check_format
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import Simulation
from fewbits.report.engines import EngineAgreement, agreement
from fewbits.report.simulation_gap import simulation_gap
from fewbits.train.after_training import calibrate_activations
from fewbits.train.fit import Adam, fit
from fewbits.train.registry import trainable

Make = Callable[["_Growing"], nn.Module | None]


def differences(program: Program, inputs: dict[str, np.ndarray]) -> list[EngineAgreement]:
    """Every engine that must equal the reference and does not, at outputs and at every value: torch,
    onnxruntime with integer operators at both optimisation extremes, and QDQ at the default."""
    batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
    return [row for row in agreement(program, [batch], every_value=True) if row.exact and row.differing]


def check_algorithm(algorithm: Callable[..., Simulation], *, recipe: str = "w4a8", keeps_float: bool = True,
                    resumable: bool = False, slack: float = 0.1, seeds: Iterable[int] = range(3)) -> None:
    """Raises AssertionError, naming the network's seed, unless a repair keeps what every repair promises.

    algorithm: called with a Simulation and batches (and `checkpoint`, a path, where it is resumable); RepairError
    on a network that gives it nothing to do is no failure. On random networks it must: leave the simulation it is
    given as it was; leave the float function unchanged (keeps_float); give the same bytes twice; give the same bytes
    when it goes on from a file that holds half of the layers; not move the output further from the float one on
    the calibration data, beyond a share `slack`; and lower to a program on which no engine differs.
    """
    for seed in seeds:
        net, example = random_network(seed)
        generator = torch.Generator().manual_seed(seed)
        batches = [example, *(example[:, :, torch.randperm(example.shape[2], generator=generator)] * share
                              for share in (1, 0.7))]
        model = fold(capture(net, example))
        simulation = calibrate(model, plan(model, recipe), batches)
        before = _bytes(simulation)
        try:
            repaired = algorithm(simulation, batches)
        except RepairError:
            continue
        assert _bytes(simulation) == before, f"network {seed}: the simulation it was given has changed"
        assert _bytes(algorithm(simulation, batches)) == _bytes(repaired), f"network {seed}: two runs differ"
        if keeps_float:
            change, size = _distance(repaired.reference, simulation.reference, batches)
            assert change <= 1e-8 * size, f"network {seed}: the float function has changed"
        was, size = _distance(simulation, simulation.reference, batches)
        now, _ = _distance(repaired, simulation.reference, batches)
        assert now <= (1 + slack) * was + 1e-10 * size, f"network {seed}: error {now:.3g} from {was:.3g}"
        wrong = differences(lower(repaired), {item.name: x.numpy() for item, x in zip(
            model.graph.inputs, [batches[0]], strict=True)})
        assert not wrong, f"network {seed}: {wrong[0]}"
        if resumable:
            assert _bytes(_resumed(algorithm, simulation, batches)) == _bytes(repaired), \
                f"network {seed}: going on from half-way gives other bytes"


def _resumed(algorithm: Callable[..., Simulation], simulation: Simulation, batches: list[torch.Tensor]) -> Simulation:
    """The result when only the first half of the layers was on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        algorithm(simulation, batches, checkpoint=path)
        kept = load(path.read_bytes())
        layers = [p for node in simulation.model.graph.nodes for p in node.params if p in kept]
        path.write_bytes(save({"fingerprint": kept["fingerprint"]}
                              | {name: kept[name] for name in layers[:len(layers) // 2]}))
        return algorithm(simulation, batches, checkpoint=path)


def _bytes(simulation: Simulation) -> dict[str, bytes]:
    return {name: tensor.detach().contiguous().numpy().tobytes() for name, tensor in simulation.state_dict().items()}


def _distance(one: nn.Module, other: nn.Module, batches: list[torch.Tensor]) -> tuple[float, float]:
    """(squared distance of all outputs, squared size of the other's)."""
    distance = size = 0.0
    with torch.no_grad():
        for x in batches:
            for a, b in zip(_tensors(one(x)), _tensors(other(x)), strict=True):
                distance += float((a - b).double().square().sum())
                size += float(b.double().square().sum())
    return distance, size


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    assert not isinstance(items, str) and isinstance(items, Iterable), "outputs are nested tensors"
    return [tensor for item in items for tensor in _tensors(item)]


def check_method(recipe: str | Path | Recipe, *, seed: int = 0) -> None:
    """Raises AssertionError unless what a recipe's methods learn keeps what every method promises.

    On a small network with live batch norm, three steps of training must: change something; leave the simulation they
    started from as it was; give the same bytes twice, and again when they go on from a checkpoint after an
    interruption; come back whole from a state dict and as a deep copy; leave nothing behind when moved to another
    device (meta); and lower to a program of integers on which no engine differs, and whose codes the simulation
    predicts.
    """
    net, x, labels = _learner(seed)
    model = fold(capture(net, x), norms="keep")
    simulation = calibrate(model, plan(model, recipe), [x])
    before, batches = _bytes(simulation), [(x, labels), (x.flip(0), labels.flip(0)), (0.9 * x, labels)]

    def learned(batches: Any = batches, into: Simulation | None = None, **options: Any) -> Simulation:
        learning = into or trainable(simulation)
        fit(learning, batches, epochs=1, optimizer=Adam(1e-2), seed=seed, quiet=True, **options)
        return learning

    result = learned()
    after = _bytes(result)
    assert _bytes(simulation) == before, "the simulation it started from has changed"
    assert after != _bytes(trainable(simulation)), "nothing was learned"
    assert _bytes(learned()) == after, "two trainings differ"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        with suppress(KeyboardInterrupt):
            learned(_Interrupted(batches), checkpoint=path, save_every=1)
        assert _bytes(learned(checkpoint=path)) == after, "going on from a checkpoint gives other bytes"
    again = trainable(simulation)
    again.load_state_dict(result.state_dict())
    again.eval()
    with torch.no_grad():
        y = result(x)
        assert torch.equal(again(x), y), "a state dict does not bring it back"
        assert torch.equal(copy.deepcopy(result)(x), y), "a deep copy gives other numbers"
    moved = copy.deepcopy(result).to("meta")
    assert all(tensor.is_meta for tensor in moved.state_dict().values()), "something stayed behind on its device"
    result = calibrate_activations(result, [x])
    program = lower(result)
    wrong = differences(program, {program.inputs[0]: x.numpy()})
    assert not wrong, str(wrong[0])
    gap = simulation_gap(program, result, [x])
    assert gap.differing <= 2 + gap.compared // 1000, f"the simulation predicts other codes: {gap}"


class _Interrupted(list[Any]):
    """Batches that stop after the second, as a person at the keyboard does."""

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(list.__iter__(self)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch


def _learner(seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Hardtanh(0, 1), nn.MaxPool2d(2),
                            nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
                            nn.Linear(96, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))
        net(torch.randn(16, 2, 8, 8))  # statistics of its own
        return net.eval(), torch.randn(16, 2, 8, 8), torch.arange(16) % 4


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

"""What went wrong, site by site: how each tensor's error came about, and what it does to the output.

Every site is looked at alone. Its own error is split by element: values beyond the grid's ends are clipped, all
others rounded; the share that is the same for a whole channel is bias, which a bias correction can take away. Its
effect is measured twice, in dB of the outputs: with only this site quantized, and with all but this one.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fewbits.errors import DataError
from fewbits.graph.graph import Node
from fewbits.graph.model import Visitor
from fewbits.graph.operators import operator_of
from fewbits.numerics.block import TENSOR
from fewbits.numerics.encoding import Encoding
from fewbits.program.inputs import Batch
from fewbits.progress import track
from fewbits.quant.calibrate import model_inputs
from fewbits.quant.simulation import Simulation, SimulationVisitor
from fewbits.ranges.histogram import Histogram
from fewbits.ranges.mse import MseRule
from fewbits.ranges.rule import Target
from fewbits.ranges.scale import encoding_for
from fewbits.report.sqnr import decibels

_BINS = 64  # of a plotted histogram
_WORST = 3  # channels named, and sites for which a remedy is tried


@dataclass(frozen=True)
class Plot:
    """A histogram as one plots it. edges, counts: linear, len(edges) = len(counts) + 1; exponents, log2_counts:
    how many magnitudes lie in [2^e, 2^(e+1)); zeros: magnitudes below a bin of the observer; low, high: the chosen
    grid's ends (the widest block's)."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    exponents: tuple[int, ...]
    log2_counts: tuple[int, ...]
    zeros: int
    low: float
    high: float


@dataclass(frozen=True)
class SiteCause:
    """One site. sqnr: of its numbers, dB; clipping, rounding: shares of its squared error, together 1; bias: the
    share that is the mean error of its channels; only, without: output SQNR in dB with only this site quantized,
    and with all but this one; channels: the worst, with their shares of the error."""

    site: str
    kind: str
    sqnr: float
    clipping: float
    rounding: float
    bias: float
    only: float
    without: float
    channels: tuple[tuple[int, float], ...]
    plot: Plot


@dataclass(frozen=True)
class Remedy:
    """Something tried on one site, and the output SQNR it gained, in dB."""

    site: str
    what: str
    gain: float


@dataclass(frozen=True)
class Explanation:
    """sqnr: of the outputs with everything quantized, dB; sites: the most harmful first; remedies: tried on the
    worst. Biases stay in float here: what int32 does to them is far below all else."""

    sqnr: float
    sites: tuple[SiteCause, ...]
    remedies: tuple[Remedy, ...]

    def to_json(self) -> str:
        """Everything, histograms included."""
        return json.dumps(asdict(self), indent=1)

    def render(self, console: Console, limit: int = 15) -> None:
        """The worst sites as a table, and what was tried."""
        table = Table("site", "kind", "site dB", "clipped", "rounded", "bias", "only this, dB", "all but this, dB",
                      "worst channels", title=f"outputs {self.sqnr:.1f} dB; what each site does to them")
        for site in self.sites[:limit]:
            channels = ", ".join(f"{channel} ({share:.0%})" for channel, share in site.channels)
            table.add_row(site.site, site.kind, f"{site.sqnr:.1f}", f"{site.clipping:.0%}", f"{site.rounding:.0%}",
                          f"{site.bias:.0%}", f"{site.only:.1f}", f"{site.without:.1f}", channels)
        console.print(table)
        for remedy in self.remedies:
            console.print(f"{remedy.site}: {remedy.what} {remedy.gain:+.2f} dB", highlight=False)


def explain(simulation: Simulation, batches: Iterable[Batch], *,
            batch_to_inputs: Callable[[Any], Any] | None = None) -> Explanation:
    """What each site's quantization does, measured on `batches` (re-iterable).

    Costs two runs over the batches for each site, and one for each remedy tried: a few hundred images tell enough.
    Raises DataError for a one-shot iterator or no batches.
    """
    if iter(batches) is batches:
        raise DataError("explain reads the batches many times: give a list or a loader, not a one-shot iterator")
    inputs = [model_inputs(simulation.model, batch, batch_to_inputs) for batch in batches]
    if not inputs:
        raise DataError("there are no batches to explain: give at least one")
    names = [quantizer.site for quantizer in simulation.quantizers()]
    causes = _Causes(simulation)
    truth = [_outputs(simulation, x, causes) for x in inputs]
    everything = frozenset(names)
    before = simulation.mode
    simulation.set_mode("simulate")
    try:
        def measured(chosen: frozenset[str], changed: dict[str, Encoding] | None = None) -> float:
            return _sqnr(simulation, inputs, truth, chosen, changed or {})

        total = measured(everything)
        sites = [causes.site(name, measured(frozenset([name])), measured(everything - {name}))
                 for name in track(names, "explaining")]
        sites.sort(key=lambda site: -site.without)
        remedies = tuple(_try(causes, site.site, total, measured, everything) for site in sites[:_WORST])
    finally:
        simulation.set_mode(before)
    return Explanation(total, tuple(sites), remedies)


class _Partly(SimulationVisitor):
    """The reference with some sites quantized; a layer's bias is the repaired one where its weight is quantized."""

    def __init__(self, simulation: Simulation, chosen: frozenset[str], changed: dict[str, Encoding]):
        super().__init__(simulation)
        self.chosen, self.changed = chosen, changed

    def value(self, name: str, value: Any) -> Any:
        return self._quantized(name, value) if name in self.chosen else value

    def parameter(self, node: Node, argument: str, value: torch.Tensor) -> torch.Tensor:
        row = operator_of(node)
        if row is not None and row.role == "dot" and argument == "bias":
            return value if node["weight"].name in self.chosen else _original(self.simulation, node["bias"].name)
        name = next((p for p in node.params if self.simulation.model.tensor(p) is value), None)
        if name is None:
            return value
        return self._quantized(name, value) if name in self.chosen else _original(self.simulation, name)

    def _quantized(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name in self.changed:
            encoding = self.changed[name]
            return torch.from_numpy(encoding.encode(value.detach().cpu().numpy()).dequantize()).to(value.device)
        return self.simulation.quantizer(name)(value)


def _original(simulation: Simulation, name: str) -> torch.Tensor:
    """A parameter of the reference; zeros for a bias that a repair made."""
    try:
        return simulation.reference.tensor(name)
    except AttributeError:
        return torch.zeros_like(simulation.model.tensor(name))


class _Causes(Visitor):
    """Watches the float run, and keeps sums for each site: never its values."""

    def __init__(self, simulation: Simulation):
        self.simulation = simulation
        self.sums: dict[str, _Sums] = {}
        for quantizer in simulation.quantizers():
            if simulation.plan.sites[quantizer.site].kind in ("weight", "constant"):
                original = _original(simulation, quantizer.site).detach()
                self._sums(quantizer.site).add(original, simulation.model.tensor(quantizer.site).detach())

    def value(self, name: str, value: Any) -> Any:
        site = self.simulation.plan.sites.get(name)
        if site is not None and site.spec is not None:
            self._sums(name).add(value, value)
        return value

    def site(self, name: str, only: float, without: float) -> SiteCause:
        sums = self.sums[name]
        error = sums.clipped + sums.rounded

        def share(part: float) -> float:
            return float(part / error) if error else 0.0

        order = np.argsort(-sums.channel_error)[:_WORST] if error else []
        channels = tuple((int(c), share(float(sums.channel_error[c]))) for c in order)
        bias = float((sums.channel_mean**2 / np.maximum(sums.channel_count, 1)).sum())
        return SiteCause(name, self.simulation.plan.sites[name].kind, float(decibels(sums.signal, error)),
                         share(sums.clipped), share(sums.rounded), share(bias), only, without, channels, sums.plot())

    def _sums(self, name: str) -> "_Sums":
        if name not in self.sums:
            kind = self.simulation.plan.sites[name].kind
            self.sums[name] = _Sums(self.simulation.quantizer(name).encoding, 0 if kind == "weight" else 1)
        return self.sums[name]


class _Sums:
    """Running sums of one site's error. axis: of its channels."""

    def __init__(self, encoding: Encoding, axis: int):
        self.encoding, self.axis = encoding, axis
        self.signal = self.clipped = self.rounded = 0.0
        self.channel_error = self.channel_mean = self.channel_count = np.zeros(0)
        self.histogram = Histogram(TENSOR)

    def add(self, original: torch.Tensor, now: torch.Tensor) -> None:
        """original: the float numbers; now: what is quantized in their place (other numbers after a repair)."""
        x = original.double().cpu().numpy()
        encoding = self.encoding
        error = encoding.encode(now.cpu().numpy()).dequantize() - x
        scale, zero_point = (encoding.block.expand(v, x.shape) for v in (encoding.scale, encoding.zero_point))
        lowest, highest = (end - zero_point for end in (encoding.format.low - 0.5, encoding.format.high + 0.5))
        beyond = (x < lowest * scale) | (x > highest * scale)
        squared = error**2
        self.signal += float((x**2).sum())
        self.clipped += float(squared[beyond].sum())
        self.rounded += float(squared[~beyond].sum())
        others = tuple(axis for axis in range(x.ndim) if axis != self.axis) if x.ndim > self.axis else ()
        channels = x.shape[self.axis] if x.ndim > self.axis else x.size
        if not self.channel_error.size:
            self.channel_error, self.channel_mean, self.channel_count = (np.zeros(channels) for _ in range(3))
        self.channel_error += squared.sum(others)
        self.channel_mean += error.sum(others)
        self.channel_count += x.size / channels
        self.histogram.update(original)

    def plot(self) -> Plot:
        counts = self.histogram.blocks[0]
        linear, edges = np.histogram(counts.centres(), _BINS, (counts.low, counts.high), weights=counts.count)
        centres = np.abs(counts.centres())
        zero = centres < counts.width
        exponents = np.floor(np.log2(np.where(zero, 1, centres))).astype(int)
        found = np.unique(exponents[~zero])
        low, high = (self.encoding.scale * (end - self.encoding.zero_point)
                     for end in (self.encoding.format.low, self.encoding.format.high))
        octaves = tuple(int(counts.count[~zero & (exponents == e)].sum()) for e in found)
        return Plot(tuple(edges.tolist()), tuple(int(c) for c in linear), tuple(found.tolist()), octaves,
                    int(counts.count[zero].sum()), float(low.min()), float(high.max()))


def _try(causes: _Causes, name: str, total: float, measured: Callable[..., float],
         everything: frozenset[str]) -> Remedy:
    """The range of least squared error in place of the site's own."""
    quantizer, rule = causes.simulation.quantizer(name), MseRule()
    spec = quantizer.spec
    if causes.simulation.plan.sites[name].kind == "weight":
        observer = rule.observer(spec.block)
        observer.update(causes.simulation.model.tensor(name).detach())
    elif spec.block == TENSOR:
        observer = causes.sums[name].histogram
    else:
        return Remedy(name, "no remedy tried (blocks of an activation)", 0.0)
    low, high = rule.range(observer, Target(spec.format, spec.symmetric, spec.scale))
    encoding = encoding_for(low, high, spec.format, spec.symmetric, spec.scale, spec.block)
    return Remedy(name, "range mse", measured(everything, {name: encoding}) - total)


def _outputs(simulation: Simulation, inputs: dict[str, torch.Tensor], visitor: Visitor) -> list[torch.Tensor]:
    with torch.no_grad():
        model = simulation.reference if isinstance(visitor, _Causes) else simulation.model
        return _tensors(model.run(inputs, visitor))


def _sqnr(simulation: Simulation, inputs: list[dict[str, torch.Tensor]], truth: list[list[torch.Tensor]],
          chosen: frozenset[str], changed: dict[str, Encoding]) -> float:
    """Of all outputs together: energy of the float ones over that of their error, dB."""
    signal = noise = 0.0
    for x, wanted in zip(inputs, truth, strict=True):
        for got, right in zip(_outputs(simulation, x, _Partly(simulation, chosen, changed)), wanted, strict=True):
            signal += float(right.double().square().sum())
            noise += float((got - right).double().square().sum())
    return float(decibels(signal, noise))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in (value.values() if isinstance(value, dict) else value) for tensor in _tensors(item)]

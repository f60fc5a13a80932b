"""Quantization error of one tensor by cause and by channel, and a histogram with the chosen range.

By element: values beyond the range are clipped, all others rounded; the share that is the same for a whole
channel is bias, which a bias correction can take away. Kept as sums: no values are stored.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fewbits.graph.model import Visitor
from fewbits.numerics.block import TENSOR
from fewbits.numerics.encoding import Encoding
from fewbits.quant.simulation import Simulation
from fewbits.ranges.histogram import Histogram
from fewbits.report.sqnr import decibels

_BINS = 64  # of a plotted histogram
WORST_CHANNELS = 3  # that are named


@dataclass(frozen=True)
class Plot:
    """A histogram as one plots it. edges, counts: linear, len(edges) = len(counts) + 1; exponents, log2_counts:
    how many magnitudes lie in [2^e, 2^(e+1)); zeros: magnitudes below a bin of the observer; low, high, step: the
    chosen range's ends and its smallest magnitude but 0 (the widest block's)."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    exponents: tuple[int, ...]
    log2_counts: tuple[int, ...]
    zeros: int
    low: float
    high: float
    step: float


@dataclass(frozen=True)
class SiteCause:
    """One tensor. sqnr: of its numbers, dB; clipping, rounding: shares of its squared error, together 1; bias: the
    share that is the mean error of its channels; only, without: output SQNR in dB with only this tensor quantized,
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


class Causes(Visitor):
    """Watches the float run, and keeps sums for each tensor, never its values."""

    def __init__(self, simulation: Simulation):
        self.simulation = simulation
        self.sums: dict[str, _Sums] = {}
        for quantizer in simulation.quantizers():
            if simulation.plan.sites[quantizer.site].kind in ("weight", "constant"):
                original = original_tensor(simulation, quantizer.site).detach()
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

        order = np.argsort(-sums.channel_error)[:WORST_CHANNELS] if error else []
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
    """Running sums of one tensor's error. axis: of its channels."""

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
                    int(counts.count[zero].sum()), float(low.min()), float(high.max()),
                    float(self.encoding.scale.max()) * _smallest_magnitude(self.encoding))


def _smallest_magnitude(encoding: Encoding) -> float:
    """Of the format's numbers other than 0, NaN and the infinities."""
    values = np.abs(encoding.format.values())
    return float(values[(values > 0) & np.isfinite(values)].min())


def original_tensor(simulation: Simulation, name: str) -> torch.Tensor:
    """A parameter of the reference; zeros for a bias that a repair made."""
    try:
        return simulation.reference.tensor(name)
    except KeyError:
        return torch.zeros_like(simulation.model.tensor(name))

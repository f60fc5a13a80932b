"""Quantization error by tensor: how each one came about, and what it does to the output.

Every tensor is looked at alone: its own error by cause (report/causes.py), and its effect measured twice, in dB of the
outputs: with only this tensor quantized, and with all but this one. For the worst, one remedy is tried and measured.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fewbits.errors import DataError
from fewbits.graph.graph import Node
from fewbits.graph.model import Visitor
from fewbits.numerics.block import TENSOR
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Int
from fewbits.program.inputs import Batch
from fewbits.progress import track
from fewbits.quant.calibrate import model_inputs
from fewbits.quant.simulation import Simulation, SimulationVisitor
from fewbits.ranges.mse import MseRule
from fewbits.ranges.observer import Observer
from fewbits.ranges.rule import Target
from fewbits.ranges.scale import encoding_for
from fewbits.report.causes import Causes, SiteCause, original_tensor
from fewbits.report.sqnr import decibels

_WORST = 3  # tensors for which a remedy is tried


@dataclass(frozen=True)
class Remedy:
    """Something tried on one tensor, and the output SQNR it gained, in dB; a gain of 0 where nothing could be tried."""

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

    def render(self, console: Console | None = None, limit: int = 15) -> None:
        """Prints the worst tensors as a table, and what was tried; to standard output by default."""
        console = console or Console()
        table = Table("tensor", "its dB", "clipped", "bias", "only", "without", "worst",
                      title=f"outputs {self.sqnr:.1f} dB; what each tensor does to them: only it, all without it")
        for column in table.columns[1:]:
            column.justify = "right"
        table.columns[0].no_wrap = True
        for site in self.sites[:limit]:
            worst = "".join(f"{channel}\u00a0({share:.0%})" for channel, share in site.channels[:1])
            table.add_row(site.site, f"{site.sqnr:.1f}", f"{site.clipping:.0%}", f"{site.bias:.0%}",
                          f"{site.only:.1f}", f"{site.without:.1f}", worst)
        console.print(table)
        for remedy in self.remedies:
            console.print(f"{remedy.site}: {remedy.what} {remedy.gain:+.2f} dB", highlight=False)


def explain(simulation: Simulation, batches: Iterable[Batch], *,
            batch_to_inputs: Callable[[Any], Any] | None = None) -> Explanation:
    """What each tensor's quantization does, measured on `batches` (re-iterable).

    Costs two runs over the batches for each tensor, and one for each remedy tried, so that time grows with the square
    of the depth: what a tensor does to the outputs is measured there. A few hundred images tell enough.
    Raises DataError for a one-shot iterator or no batches.
    """
    if iter(batches) is batches:
        raise DataError("explain reads the batches many times: give a list or a loader, not a one-shot iterator")
    inputs = [model_inputs(simulation.model, batch, batch_to_inputs) for batch in batches]
    if not inputs:
        raise DataError("there are no batches to explain: give at least one")
    names = [quantizer.site for quantizer in simulation.quantizers()]
    causes = Causes(simulation)
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
    """The reference with some tensors quantized; a layer's bias is the repaired one where its weight is quantized."""

    def __init__(self, simulation: Simulation, chosen: frozenset[str], changed: dict[str, Encoding]):
        super().__init__(simulation)
        self.chosen, self.changed = chosen, changed

    def value(self, name: str, value: Any) -> Any:
        return self._quantized(name, value) if name in self.chosen else value

    def parameter(self, node: Node, argument: str, name: str, value: torch.Tensor) -> torch.Tensor:
        if node.role == "dot" and argument == "bias":
            return value if node["weight"].name in self.chosen else original_tensor(self.simulation, name)
        return self._quantized(name, value) if name in self.chosen else original_tensor(self.simulation, name)

    def _quantized(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name in self.changed:
            encoding = self.changed[name]
            return torch.from_numpy(encoding.encode(value.detach().cpu().numpy()).dequantize()).to(value.device)
        return self.simulation.quantizer(name)(value)


def _try(causes: Causes, name: str, total: float, measured: Callable[..., float],
         everything: frozenset[str]) -> Remedy:
    """The range of least squared error in place of the tensor's own; two more bits where that is what it has."""
    quantizer, rule = causes.simulation.quantizer(name), MseRule()
    spec = quantizer.spec
    if not isinstance(spec.format, Int) or spec.format.fraction is not None:
        return Remedy(name, f"no remedy tried (none is known for {spec.format})", 0.0)
    kind = causes.simulation.plan.sites[name].kind
    if kind != "weight" and spec.block != TENSOR:
        return Remedy(name, "no remedy tried (blocks of an activation)", 0.0)
    format, what = spec.format, f"range {rule} for {spec.range}"
    if spec.range == rule.name:
        if format.bits > 14:
            return Remedy(name, "no remedy tried (it has the range mse, and bits enough)", 0.0)
        format, what = replace(format, bits=format.bits + 2), f"{format.bits + 2} bits for {format.bits}"
    observer: Observer = causes.sums[name].histogram
    if kind == "weight":
        observer = rule.observer(spec.block)
        observer.update(causes.simulation.model.tensor(name).detach())
    low, high = rule.range(observer, Target(format, spec.symmetric, spec.scale))
    encoding = encoding_for(low, high, format, spec.symmetric, spec.scale, spec.block)
    return Remedy(name, what, measured(everything, {name: encoding}) - total)


def _outputs(simulation: Simulation, inputs: dict[str, torch.Tensor], visitor: Visitor) -> list[torch.Tensor]:
    with torch.no_grad():
        model = simulation.reference if isinstance(visitor, Causes) else simulation.model
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

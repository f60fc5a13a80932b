"""Batch norm re-estimation: statistics of the quantized network in place of the float one's.

Quantization shifts what each batch norm reads; statistics gathered with everything quantized take that back.
Source: Sun et al. 2019, "Hybrid 8-bit floating point (HFP8) training and inference" (before evaluation).
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewbits.errors import CalibrationError, RepairError
from fewbits.graph.graph import Graph, Node
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.program.inputs import Batch
from fewbits.progress import track
from fewbits.quant.calibrate import model_inputs
from fewbits.quant.simulation import Simulation, SimulationVisitor


def reestimate_batch_norm(simulation: Simulation, batches: Iterable[Batch], *, checkpoint: str | Path | None = None,
                          batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A copy whose batch norms have the mean and variance of these batches, with everything quantized as it is.

    Every batch is normalised by itself and counts by its number of elements; dropout drops nothing. checkpoint: a file
    that keeps the statistics found. Raises RepairError where no batch norm is live, CalibrationError without batches.
    """
    renewed = simulation.to_repair()
    model = renewed.model
    norms = [node for node in model.graph.nodes if node.role == "norm"]
    if not norms:
        raise RepairError("no batch norm is live: it was folded before the plan was made; fold with norms=\"keep\"")
    statistics = [name for node in norms for name in (node["running_mean"].name, node["running_var"].name)]
    kept = Checkpoint.open(checkpoint, simulation, "batch norm", batches)
    if not all(name in kept for name in statistics):
        kept.add(found := _measured(simulation, norms, kept.batches, batch_to_inputs))
    else:
        found = {name: kept.take(name, model.tensor(name)) for name in statistics}
    for name, tensor in found.items():
        model.tensor(name).copy_(tensor)
    renewed.eval()
    return renewed


def _measured(simulation: Simulation, norms: list[Node], batches: Iterable[Batch],
              batch_to_inputs: Callable[[Any], Any] | None) -> dict[str, torch.Tensor]:
    """Statistics by their names in the model."""
    trial = simulation.copy()
    trial.eval()
    trial.model.train()  # each batch is normalised by itself, and no quantizer learns
    trial.model.norms_frozen = False
    trial.model.graph = _without_dropout(trial.model.graph)
    visitor = _Moments(trial, norms)
    with torch.no_grad():
        for batch in track(batches, "re-estimating batch norm"):
            trial.run(model_inputs(trial.model, batch, batch_to_inputs), visitor)
    if not visitor.counts:
        raise CalibrationError("there are no batches: give at least one")
    return visitor.statistics()


def _without_dropout(graph: Graph) -> Graph:
    nodes = (replace(node, arguments={**node.arguments, "p": 0.0})
             if node.op == "dropout" else node for node in graph.nodes)
    return graph.with_nodes(tuple(nodes))


class _Moments(SimulationVisitor):
    """Adds up what each batch norm reads: its count, sum and sum of squares per channel, float64."""

    def __init__(self, simulation: Simulation, norms: list[Node]):
        super().__init__(simulation)
        self._re_estimated = norms
        self._read = {node["input"].name for node in norms}
        self.counts: dict[str, int] = {}
        self._sums: dict[str, torch.Tensor] = {}

    def value(self, name: str, value: Any) -> Any:
        value = super().value(name, value)  # what a batch norm of its own reads has been quantized
        if name in self._read:
            flat = value.double().transpose(0, 1).flatten(1)
            moments = torch.stack([flat.sum(1), flat.square().sum(1)])
            self._sums[name] = self._sums[name] + moments if name in self._sums else moments
            self.counts[name] = self.counts.get(name, 0) + flat.shape[1]
        return value

    def statistics(self) -> dict[str, torch.Tensor]:
        """Mean and unbiased variance, as torch keeps it, by the names of the running statistics, float32."""
        found = {}
        for node in self._re_estimated:
            count = self.counts[node["input"].name]
            mean, square = self._sums[node["input"].name] / count
            found[node["running_mean"].name] = mean.float()
            variance = (square - mean.square()).clamp(min=0) * count / max(count - 1, 1)
            found[node["running_var"].name] = variance.float()
        return found

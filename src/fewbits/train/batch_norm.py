"""Batch norm at the end of training in few bits: its statistics anew, or no longer moving.

Source: Jacob et al. 2018, arXiv:1712.05877, §3.2; Krishnamoorthi 2018, arXiv:1806.08342, §3.2.4 (frozen statistics);
Sun et al. 2019 (re-estimation before evaluation in few bits).
"""

from collections.abc import Iterable
from typing import Any

import torch

from fewbits.errors import CalibrationError
from fewbits.graph.graph import Node
from fewbits.graph.operators import operator_of
from fewbits.quant.simulation import Simulation, SimulationVisitor


def reestimate_batch_norm(simulation: Simulation, batches: Iterable[torch.Tensor]) -> Simulation:
    """A copy whose batch norms have the mean and variance of these batches, with everything quantized as it is.

    batches: inputs of the model; every batch counts by its number of elements. Raises CalibrationError where there are
    none, or no batch norm is live.
    """
    learned = simulation.to_repair()
    norms = [node for node in learned.model.graph.nodes
             if (row := operator_of(node)) is not None and row.role == "norm"]
    if not norms:
        raise CalibrationError("no batch norm is live: it was folded before the plan was made")
    visitor = _Moments(learned, norms)
    learned.eval()
    learned.model.train()  # each batch is normalised by itself, and no quantizer learns
    with torch.no_grad():
        for batch in batches:
            learned.run(learned.model.named_inputs((batch,), {}), visitor)
    learned.eval()
    if not visitor.counts:
        raise CalibrationError("there are no batches: give at least one")
    visitor.write()
    return learned


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

    def write(self) -> None:
        """Puts mean and unbiased variance, as torch keeps it, into the running statistics."""
        for node in self._re_estimated:
            name = node["input"].name
            count = self.counts[name]
            mean, square = self._sums[name] / count
            variance = (square - mean.square()).clamp(min=0) * count / max(count - 1, 1)
            model = self.simulation.model
            model.tensor(node["running_mean"].name).copy_(mean)
            model.tensor(node["running_var"].name).copy_(variance)

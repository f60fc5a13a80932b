"""PROFIT: layers whose outputs their own quantization keeps moving are frozen first, the others learn on.

Source: Park and Yoo 2020, arXiv:2008.04693 (PROFIT): AIWQ, the activation instability induced by weight quantization,
and progressive freezing; its quantizers are in `duq.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.errors import TrainingError
from fewbits.quant.simulation import Simulation, SimulationVisitor
from fewbits.train.fit import Adam, MakeOptimizer
from fewbits.train.parameters import parameter_groups
from fewbits.train.step import Loss, Steps

_LEAST_VARIANCE = 1e-12
_ADAM = Adam(1e-4)


def normal_divergence(mean: Tensor, variance: Tensor, later_mean: Tensor, later_variance: Tensor) -> Tensor:
    """KL(N(later) ‖ N(before)) of normal distributions, number by number:
    ½ · (log(σ²/σ'²) + (σ'² + (μ' − μ)²) / σ² − 1), σ and μ before, σ' and μ' later."""
    variance, later_variance = variance.clamp(min=_LEAST_VARIANCE), later_variance.clamp(min=_LEAST_VARIANCE)
    return 0.5 * (torch.log(variance / later_variance) + (later_variance + (later_mean - mean).square()) / variance - 1)


def activation_instability(simulation: Simulation, batches: Iterable[tuple[Tensor, Tensor]], *,
                           optimizer: MakeOptimizer = _ADAM, loss: Loss = F.cross_entropy) -> dict[str, float]:
    """AIWQ of each convolution and linear layer with trained weights, by the name of its weight.

    One step of training is taken on each batch; the layer's outputs on that batch before and after it are taken as
    normal per output channel, and the divergence (`normal_divergence`) is averaged over channels and batches. A weight
    that hops between two codes moves its outputs much for a small step, more so in a depthwise layer, whose sums have
    few terms. Trains the simulation by these steps. batches: (inputs, labels).
    """
    simulation.train()
    steps = Steps(simulation, optimizer(parameter_groups(simulation)), loss)
    sums: dict[str, float] = {}
    count = 0
    for count, (x, y) in enumerate(batches, 1):
        before = _moments(simulation, x)
        steps.take(x, y, f"step {count} of the instability's measurement")
        after = _moments(simulation, x)
        for name, (mean, variance) in before.items():
            sums[name] = sums.get(name, 0.0) + float(normal_divergence(mean, variance, *after[name]).mean())
    simulation.eval()
    if not count:
        raise TrainingError("the instability of activations is measured on batches: give one or more")
    return {name: total / count for name, total in sums.items()}


def freeze(simulation: Simulation, weights: Sequence[str]) -> Simulation:
    """A copy in which these weights, and what their quantizers learn, are trained no longer."""
    frozen = simulation.to_repair()
    for name in weights:
        tensor = frozen.model.tensor(name)
        tensor.requires_grad_(False)
        for parameter in frozen.quantizer(name).parameters():
            parameter.requires_grad_(False)
    return frozen


def least_stable(instability: Mapping[str, float], share: float) -> list[str]:
    """The weights of the largest instability, a share of all, rounded down; of equals the first."""
    ordered = sorted(instability, key=lambda name: -instability[name])
    return ordered[:int(share * len(ordered))]


class _Moments(SimulationVisitor):
    """Mean and variance, per output channel, of what layers with trained weights compute."""

    def __init__(self, simulation: Simulation):
        super().__init__(simulation)
        self._weights = {node.name: node["weight"].name for node in simulation.model.graph.nodes
                         if node.role == "dot" and node["weight"].name in simulation.plan.sites
                         and simulation.model.tensor(node["weight"].name).requires_grad}
        self.found: dict[str, tuple[Tensor, Tensor]] = {}

    def value(self, name: str, value: Any) -> Any:
        if name in self._weights:
            axes = [axis for axis in range(value.ndim) if axis != (1 if value.ndim > 2 else value.ndim - 1)]
            variance, mean = torch.var_mean(value, axes, correction=0)
            self.found[self._weights[name]] = mean, variance
        return super().value(name, value)


def _moments(simulation: Simulation, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Of the batch as training sees it, leaving no trace in running statistics."""
    kept = {name: buffer.clone() for name, buffer in simulation.named_buffers()}
    moments = _Moments(simulation)
    with torch.no_grad():
        simulation.run(simulation.model.named_inputs((x,), {}), moments)
        for name, buffer in simulation.named_buffers():
            buffer.copy_(kept[name])
    return moments.found

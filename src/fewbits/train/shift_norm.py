"""Shift-based batch norm: deviations and gains rounded to powers of two, so that both are shifts.

Source: Hubara et al. 2016, arXiv:1609.07061 (QNN), algorithm 2 and its AP2; Courbariaux et al. 2016, arXiv:1602.02830.
The variance itself is exact here (the paper takes C(x) · AP2(C(x)) for the square), and so are the running statistics.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.graph.graph import Node
from fewbits.quant.simulation import Simulation, SimulationVisitor


def ap2(x: Tensor) -> Tensor:
    """sign(x) · 2^rint(log2 |x|), 0 for 0: the power of two nearest in its logarithm, as float of x's type."""
    return torch.where(x == 0, torch.zeros_like(x), x.sign() * torch.exp2(torch.round(torch.log2(x.abs()))))


def _rounded(x: Tensor) -> Tensor:
    """`ap2` with the gradient of the identity."""
    return x + (ap2(x.detach()) - x).detach()


def shift_normalized(x: Tensor, gain: Tensor | None, offset: Tensor | None, eps: float) -> Tensor:
    """(x − mean) · AP2(1/√(σ² + ε)) · AP2(γ) + β over the batch. x: [N, C, ...]; gain γ, offset β: [C] or None."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    variance, mean = torch.var_mean(x, axes, correction=0)
    factor = _rounded(torch.rsqrt(variance + eps))
    factor = factor if gain is None else factor * _rounded(gain)
    y = (x - mean.reshape(shape)) * factor.reshape(shape)
    return y if offset is None else y + offset.reshape(shape)


class WithShiftNorms(nn.Module):
    """A Simulation whose live batch norms are shift-based. It trains and runs like the simulation, whose parameters it
    holds; `settled` gives the simulation to lower, whose ordinary batch norms compute the same."""

    def __init__(self, simulation: Simulation):
        super().__init__()
        self.simulation = simulation

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        inputs = self.simulation.model.named_inputs(args, kwargs)
        if self.training:
            return self.simulation.run(inputs, _Shifting(self.simulation))
        with _gains(self.simulation):
            return self.simulation.run(inputs)

    def settled(self) -> Simulation:
        """A copy whose gains are those by which an ordinary batch norm multiplies with the powers of two."""
        copied = self.simulation.to_repair()
        for gain, value in _settled_gains(copied):
            gain.data.copy_(value)
        return copied


def _settled_gains(simulation: Simulation) -> Iterator[tuple[Tensor, Tensor]]:
    """Each gain γ, and AP2(γ) · AP2(1/√(σ² + ε)) · √(σ² + ε) of the running variance."""
    model = simulation.model
    for node in _norms(simulation):
        gain, variance = model.tensor(node["weight"].name), model.tensor(node["running_var"].name)
        deviation = torch.sqrt(variance.double() + node["eps"])
        yield gain, (ap2(gain.detach()).double() * ap2(1 / deviation) * deviation).to(gain.dtype)


def _norms(simulation: Simulation) -> list[Node]:
    return [node for node in simulation.model.graph.nodes if node.op == "batch_norm" and node["weight"] is not None]


@contextmanager
def _gains(simulation: Simulation) -> Iterator[None]:
    """The settled gains in place for as long as the context lasts."""
    kept = [(gain, gain.detach().clone(), value) for gain, value in _settled_gains(simulation)]
    for gain, _, value in kept:
        gain.data.copy_(value)
    try:
        yield
    finally:
        for gain, before, _ in kept:
            gain.data.copy_(before)


class _Shifting(SimulationVisitor):
    """Normalizes by shifts what ordinary batch norms read; those still keep the running statistics."""

    def __init__(self, simulation: Simulation):
        super().__init__(simulation)
        self._shifted = {node.name: node for node in _norms(simulation)}
        self._read: dict[str, Tensor] = {}

    def operand(self, node: Node, argument: str, value: Any) -> Any:
        if node.name in self._shifted and argument == "input":
            self._read[node.name] = value
        return super().operand(node, argument, value)

    def value(self, name: str, value: Any) -> Any:
        node = self._shifted.get(name)
        if node is not None:
            model = self.simulation.model
            offset = None if node["bias"] is None else model.tensor(node["bias"].name)
            value = shift_normalized(self._read.pop(name), model.tensor(node["weight"].name), offset, node["eps"])
        return super().value(name, value)

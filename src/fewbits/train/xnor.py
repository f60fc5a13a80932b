"""XNOR-Net's scaling factors of activations, K.

Source: Rastegari et al. 2016, arXiv:1603.05279, §3.2, eq. 11. K depends on the position in the image, so it is a scale
of no encoding: it exists in simulations only, and a program leaves it out, as the authors' released code does.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.quant.simulation import Simulation, SimulationVisitor


def magnitude(x: torch.Tensor) -> torch.Tensor:
    """A: the mean magnitude over channels, [N, 1, H, W]. x: [N, C, H, W], before its sign is taken."""
    return x.abs().mean(1, keepdim=True)


def scaling_map(magnitudes: torch.Tensor, kernel: Sequence[int], stride: Any = 1, padding: Any = 0,
                dilation: Any = 1) -> torch.Tensor:
    """K: the mean of A under each position of the kernel, [N, 1, H', W']. The rest is the convolution's own, as
    `F.conv2d` takes it."""
    box = torch.full((1, 1, *kernel), 1 / math.prod(kernel), dtype=magnitudes.dtype, device=magnitudes.device)
    return F.conv2d(magnitudes, box, None, stride, padding, dilation)


class WithScalingMaps(nn.Module):
    """A Simulation whose convolutions over binary activations are multiplied with K, as the paper has it.

    It trains and runs like the simulation, whose parameters it holds. Lowering takes `simulation`, without K: a scale
    that depends on the position is no encoding, so that figures with K are not those of a program.
    """

    def __init__(self, simulation: Simulation):
        super().__init__()
        self.simulation = simulation

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        inputs = self.simulation.model.named_inputs(args, kwargs)
        return self.simulation.run(inputs, _Scaling(self.simulation))


class _Scaling(SimulationVisitor):
    """Remembers the magnitudes of binary activations before their sign is taken, and multiplies what follows."""

    def __init__(self, simulation: Simulation):
        super().__init__(simulation)
        self._magnitudes: dict[str, torch.Tensor] = {}
        self._convolutions = {node.name: node for node in simulation.model.graph.nodes
                              if node.op == "conv" and len(node.shape or ()) == 4}

    def value(self, name: str, value: Any) -> Any:
        node = self._convolutions.get(name)
        if node is not None and node["input"].name in self._magnitudes:
            kernel = self.simulation.model.tensor(node["weight"].name).shape[2:]
            value = value * scaling_map(self._magnitudes[node["input"].name], kernel, node["stride"], node["padding"],
                                        node["dilation"])
        site = self.simulation.plan.sites.get(name)
        if site is not None and site.spec is not None and str(site.spec.format) == "binary" and value.ndim == 4:
            self._magnitudes[name] = magnitude(value)
        return super().value(name, value)

"""XNOR-Net's scaling factors of activations, K.

Source: Rastegari et al. 2016, arXiv:1603.05279, §3.2, eq. 11. K depends on the position in the image, so it is a scale
of no encoding: it exists in simulations only, and a program leaves it out, as the authors' released code does.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.quant.simulation import Simulation, SimulationVisitor


def scaling_map(x: torch.Tensor, kernel: tuple[int, int], stride: int = 1, padding: int = 0) -> torch.Tensor:
    """K: the mean magnitude under each position of the kernel, over channels too.

    x: [N, C, H, W], before its sign is taken. Returns [N, 1, H', W'].
    """
    magnitudes = x.abs().mean(1, keepdim=True)
    box = torch.full((1, 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=x.dtype, device=x.device)
    return F.conv2d(magnitudes, box, stride=stride, padding=padding)


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
            box = torch.full((1, 1, *kernel), 1 / kernel.numel(), dtype=value.dtype, device=value.device)
            value = value * F.conv2d(self._magnitudes[node["input"].name], box, None, node["stride"], node["padding"],
                                     node["dilation"])
        site = self.simulation.plan.sites.get(name)
        if site is not None and site.spec is not None and str(site.spec.format) == "binary" and value.ndim == 4:
            self._magnitudes[name] = value.abs().mean(1, keepdim=True)
        return super().value(name, value)

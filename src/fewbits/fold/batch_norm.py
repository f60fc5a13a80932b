"""Batch norm as the affine map that it is once its statistics stand still."""

import torch

from fewbits.errors import CaptureError
from fewbits.graph.graph import Node
from fewbits.graph.model import Model, Normal


def scale_and_shift(model: Model, node: Node) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch norm node as scale·x + shift, float64 [C]: γ/√(σ²+ε) and β − μ·γ/√(σ²+ε).

    Raises CaptureError when it keeps no running statistics.
    """
    def tensor(argument: str) -> torch.Tensor | None:
        param = node[argument]
        return None if param is None else model.tensor(param.name).detach().double()

    mean, var, gamma, beta = (tensor(name) for name in ("running_mean", "running_var", "weight", "bias"))
    if mean is None or var is None:
        raise CaptureError(f"batch norm {node.name!r} keeps no running statistics: it is no affine map")
    scale = torch.rsqrt(var + node["eps"])
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale
    return scale, shift if beta is None else shift + beta


def prediction(model: Model, node: Node) -> Normal | None:
    """What a batch norm node's results are distributed like where the data is that of training: mean β and deviation
    |γ| (Nagel et al. 2019, arXiv:1906.04721, §4.1.3). None where its statistics were never gathered."""
    mean, var, gamma, beta = (None if node[name] is None else model.tensor(node[name].name).detach().double()
                              for name in ("running_mean", "running_var", "weight", "bias"))
    if mean is None or var is None or (not mean.any() and bool((var == 1).all())):
        return None
    return Normal(torch.zeros_like(mean) if beta is None else beta.clone(),
                  torch.ones_like(mean) if gamma is None else gamma.abs())

"""A batch norm moved into the layer before it, on plain modules."""

import copy
from typing import TypeVar

import torch
from torch import nn

from fewbits.errors import CaptureError

Layer = TypeVar("Layer", nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norm(layer: Layer, norm: nn.Module) -> Layer:
    """A copy of the layer that computes what the layer and the batch norm behind it compute in evaluation mode.

    w' = w · γ / √(σ² + ε) per output channel, b' = (b − μ) · γ / √(σ² + ε) + β, in float64. norm: a BatchNorm1d, 2d or
    3d with running statistics. Raises CaptureError where it has none, or not as many channels as the layer gives.
    Source: Jacob et al. 2018, arXiv:1712.05877, §3.2.

    >>> layer, norm = nn.Linear(3, 2), nn.BatchNorm1d(2).eval()
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(fold_batch_norm(layer, norm)(x), norm(layer(x)), atol=1e-6)
    True
    """
    mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if mean is None or variance is None:
        raise CaptureError(f"{type(norm).__name__} keeps no running statistics: it is no affine map")
    if len(mean) != len(layer.weight):
        raise CaptureError(f"a batch norm of {len(mean)} channels does not fit a layer of {len(layer.weight)}")
    gamma, beta = (torch.as_tensor(default if given is None else given).detach().double()
                   for given, default in ((norm.weight, 1.0), (norm.bias, 0.0)))
    scale = gamma * torch.rsqrt(variance.detach().double() + norm.eps)
    folded = copy.deepcopy(layer)
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias.detach()
    with torch.no_grad():
        shape = (-1, *[1] * (layer.weight.ndim - 1))
        folded.weight.copy_((layer.weight.double() * scale.reshape(shape)).to(layer.weight.dtype))
        shifted = (bias.double() - mean.double()) * scale + beta
        folded.bias = nn.Parameter(shifted.to(layer.weight.dtype))
    return folded

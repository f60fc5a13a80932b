"""A batch norm moved into the layer before it, on plain modules."""

import copy
from typing import TypeVar

import torch
from torch import nn

from fewbits.errors import CaptureError
from fewbits.options import shown

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
Layer = TypeVar("Layer", nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d,
                nn.ConvTranspose3d)


def fold_batch_norm(layer: Layer, norm: nn.Module) -> Layer:
    """A copy of the layer that computes what the layer and the batch norm behind it compute in evaluation mode.

    w' = w · γ / √(σ² + ε) per output channel, b' = (b − μ) · γ / √(σ² + ε) + β, in float64. layer: fully connected or a
    convolution, transposed ones too (whose output channels are the second axis of the weight, group by group). norm: a
    BatchNorm1d, 2d or 3d with running statistics. Raises CaptureError for other modules, for a norm without statistics,
    and for one of other channels than the layer gives.
    Source: Jacob et al. 2018, arXiv:1712.05877, §3.2.

    >>> layer, norm = nn.Linear(3, 2), nn.BatchNorm1d(2).eval()
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(fold_batch_norm(layer, norm)(x), norm(layer(x)), atol=1e-6)
    True
    """
    if not isinstance(layer, _LAYERS):
        raise CaptureError(f"{shown(layer)} takes no batch norm in: give a fully connected layer or a convolution")
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        raise CaptureError(f"{shown(norm)} is no batch norm: give the BatchNorm1d, 2d or 3d behind the layer")
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise CaptureError(f"{type(norm).__name__} keeps no running statistics: it is no affine map")
    if len(mean) != _outputs(layer):
        raise CaptureError(f"a batch norm of {len(mean)} channels does not fit a layer of {_outputs(layer)}")
    gamma, beta = (torch.as_tensor(default if given is None else given).detach().double()
                   for given, default in ((norm.weight, 1.0), (norm.bias, 0.0)))
    scale = gamma * torch.rsqrt(variance.detach().double() + norm.eps)
    scale = scale.expand(len(mean))
    folded = copy.deepcopy(layer)
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias.detach()
    with torch.no_grad():
        folded.weight.copy_((layer.weight.double() * _beside(layer, scale)).to(layer.weight.dtype))
        shifted = (bias.double() - mean.double()) * scale + beta
        folded.bias = nn.Parameter(shifted.to(layer.weight.dtype))
    return folded


def _outputs(layer: nn.Module) -> int:
    """Output channels."""
    assert isinstance(layer, _LAYERS)
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _beside(layer: nn.Module, per_output: torch.Tensor) -> torch.Tensor:
    """Numbers per output channel, in a shape that broadcasts against the layer's weight: [O, I / groups, …], or
    transposed [I, O / groups, …], whose first axis holds the groups one after the other."""
    assert isinstance(layer, _LAYERS)
    rank = layer.weight.ndim
    if not isinstance(layer, _TRANSPOSED):
        return per_output.reshape(-1, *[1] * (rank - 1))
    of_group = per_output.reshape(layer.groups, 1, -1)
    rows = of_group.expand(-1, layer.in_channels // layer.groups, -1).reshape(layer.in_channels, -1)
    return rows.reshape(*rows.shape, *[1] * (rank - 2))

"""What batch norm says of the means inside a network, without data.

A folded batch norm makes its layer's results normal with mean β and deviation |γ| a channel. Behind a clamp to
[a, b] the mean is that of a clipped normal (Nagel et al. 2019, arXiv:1906.04721, appendix C); a sum of values
taken as independent adds means and variances; global pooling and reshaping keep the mean. Elsewhere nothing is known.
"""

import math

import torch

from fewbits.graph.graph import Node
from fewbits.graph.model import Model, Normal
from fewbits.graph.operators import bounds, reduced_axes


def clipped_normal(normal: Normal, low: float, high: float) -> Normal:
    """Mean and deviation of a normal value clipped to [low, high]; a deviation of 0 is a constant."""
    constant = normal.std <= 0
    std = torch.where(constant, 1.0, normal.std)
    unit = torch.distributions.Normal(torch.zeros_like(std), torch.ones_like(std))
    edges, moments = [], []
    for bound in (low, high):
        if math.isinf(bound):
            edges.append(torch.full_like(std, float(bound > 0)))
            moments.append((torch.zeros_like(std), torch.zeros_like(std)))
        else:
            z = (bound - normal.mean) / std
            density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
            edges.append(unit.cdf(z))
            moments.append((density, z * density))
    below, above = edges[0], 1 - edges[1]
    inside = edges[1] - edges[0]
    first = normal.mean * inside + std * (moments[0][0] - moments[1][0])
    second = ((normal.mean**2 + std**2) * inside + 2 * normal.mean * std * (moments[0][0] - moments[1][0])
              + std**2 * (moments[0][1] - moments[1][1]))
    if not math.isinf(low):
        first, second = first + low * below, second + low**2 * below
    if not math.isinf(high):
        first, second = first + high * above, second + high**2 * above
    variance = (second - first**2).clamp(min=0)
    clipped = normal.mean.clamp(low, high)
    return Normal(torch.where(constant, clipped, first), torch.where(constant, 0.0, variance.sqrt()))


def expectations(model: Model) -> dict[str, torch.Tensor]:
    """E of each value's channels, float64 [C], where it is known."""
    return {name: normal.mean for name, normal in _normals(model).items()}


def _normals(model: Model) -> dict[str, Normal]:
    known: dict[str, Normal] = {}
    for node in model.graph.nodes:
        if node.operator is None:
            continue
        sources = [known.get(name) for name in node.refs]
        if node.role == "dot":
            result = model.predicted.get(node.name)
        elif not sources or any(source is None for source in sources) or node.params:
            result = None
        else:
            result = _through(node, [source for source in sources if source is not None])
        if result is not None:
            known[node.name] = result
    return known


def _through(node: Node, sources: list[Normal]) -> Normal | None:
    first = sources[0]
    match node.op:
        case "clamp":
            return clipped_normal(first, *bounds(node))
        case "add" if len(sources) == 2 and first.mean.shape == sources[1].mean.shape:
            return Normal(first.mean + sources[1].mean, (first.std**2 + sources[1].std**2).sqrt())
        case "adaptive_average_pool" | "dropout" | "identity":
            return first
        case "mean" if set(reduced_axes(node)) == {2, 3}:
            return first
        case "reshape" if node.shape is not None and node.shape[-1] == first.mean.numel() and len(node.shape) == 2:
            return first
        case _:
            return None

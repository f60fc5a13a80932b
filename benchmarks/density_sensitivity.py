"""How much each layer minds being pruned alone."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from fewbits.compress import prune
from fewbits.compress.flow import prunable


def sensitivity(model: nn.Module, densities: Iterable[float],
                score: Callable[[nn.Module], float]) -> Mapping[str, tuple[float, ...]]:
    """`score` of the model with one layer pruned to each density, all others whole, by the layer's weight.

    Nothing is retrained, and every weight is as before in the end, also when `score` fails. Source: Han et al. 2015,
    arXiv:1506.02626, Figure 6.
    """
    parameters, wanted = dict(model.named_parameters()), tuple(densities)
    return {name: tuple(_pruned(parameters[name], density, lambda: score(model)) for density in wanted)
            for name in prunable(model)}


def _pruned(weight: nn.Parameter, density: float, score: Callable[[], float]) -> float:
    whole = weight.detach().clone()
    with torch.no_grad():
        weight.masked_fill_(~prune.by_density(weight, density), 0)
    try:
        return score()
    finally:
        with torch.no_grad():
            weight.copy_(whole)

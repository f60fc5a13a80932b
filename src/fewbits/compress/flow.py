"""Prune, retrain, share, tune: the flow of Deep Compression over a model and its data, step by step, resumable.

Source: Han, Mao and Dally 2016, arXiv:1510.00149.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewbits.compress import prune
from fewbits.compress.masks import Masks
from fewbits.compress.share import Shared, constrained, share
from fewbits.compress.tune import Codebooks, tune
from fewbits.errors import RecipeError

Epochs = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
"""The (inputs, targets) of an epoch, by its number: the same each time, so that a flow can be taken up again."""


@dataclass(frozen=True)
class Settings:
    """What to aim at, layer by layer.

    density: share of weights kept, by parameter name; centroids: k of each layer; price: what a bit of a code costs,
    in mean squared deviations of the layer's kept weights (0: plain k-means); prune_epochs: of the gradual
    pruning and retraining together; tune_epochs: of the codebooks; prune_rate, tune_rate: highest learning rates.
    """

    density: Mapping[str, float]
    centroids: Mapping[str, int]
    price: float = 0.0
    prune_epochs: int = 10
    tune_epochs: int = 3
    prune_rate: float = 2e-3
    tune_rate: float = 1e-3
    pruning_share: float = 0.5
    """Part of the pruning epochs in which the density still falls."""

    def __post_init__(self) -> None:
        if self.density.keys() != self.centroids.keys() or not self.density:
            raise RecipeError("every compressed layer needs a density and a number of centroids")


@dataclass
class Progress:
    """Where a flow stands; all of it is kept, so that it can be taken up again.

    done: epochs of pruning and of tuning that are over; state: the model's tensors; masks: of the compressed layers.
    """

    stage: str = "prune"
    done: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)


def prunable(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters with two or more axes: what Deep Compression compresses. Biases and norms stay."""
    return tuple(name for name, parameter in model.named_parameters() if parameter.ndim > 1)


def prune_and_retrain(model: nn.Module, epochs: Epochs, settings: Settings, progress: Progress,
                      keep: Callable[[Progress], None] = lambda _: None, loss: Any = F.cross_entropy) -> Masks:
    """Lowers the density of each layer by a cubic schedule while training, then trains on under fixed masks.

    keep: called after each epoch; progress: where to go on. Masks are chosen anew at every epoch of the falling
    part, among all weights, so a pruned one may come back. The learning rate falls to zero as a half cosine.
    """
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name] for name in settings.density}
    if progress.state:
        model.load_state_dict(progress.state)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.prune_rate)
    if progress.optimizer:
        optimizer.load_state_dict(progress.optimizer)
    everything = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    masks = Masks(model, progress.masks or everything)
    masks.hold(optimizer)
    falling = max(1, round(settings.prune_epochs * settings.pruning_share))
    for epoch in range(progress.done, settings.prune_epochs):
        if epoch < falling:
            masks.change({name: prune.by_density(weight, prune.gradual(epoch + 1, 0, falling, settings.density[name]))
                          for name, weight in weights.items()})
        for group in optimizer.param_groups:
            group["lr"] = _cosine(settings.prune_rate, epoch, settings.prune_epochs)
        model.train()
        for x, y in epochs(epoch):
            value = loss(model(x), y)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        progress.done, progress.state, progress.masks = epoch + 1, _copy(model), dict(masks.masks)
        progress.optimizer = optimizer.state_dict()
        keep(progress)
    model.eval()
    return masks


def share_layers(model: nn.Module, settings: Settings, masks: Mapping[str, Tensor]) -> dict[str, Shared]:
    """Centroids of each layer's remaining weights, optimal for the squared error, or for that and bits."""
    parameters = dict(model.named_parameters())
    shared = {}
    for name, k in settings.centroids.items():
        weight, mask = parameters[name].detach().cpu().numpy(), masks[name].cpu().numpy()
        price = settings.price * float(np.var(weight[mask])) if settings.price and mask.any() else 0.0
        shared[name] = constrained(weight, k, price, mask=mask) if price else share(weight, k, mask=mask)
    return shared


def tune_codebooks(model: nn.Module, shared: Mapping[str, Shared], epochs: Epochs,
                   settings: Settings, loss: Any = F.cross_entropy) -> dict[str, Shared]:
    """Trains centroids (and biases) with Adam; leaves the shared weights in the model too."""
    books = Codebooks(model, shared)
    trained = [parameter for parameter in books.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=settings.tune_rate)
    books.train()
    for epoch in range(settings.tune_epochs):
        for group in optimizer.param_groups:
            group["lr"] = _cosine(settings.tune_rate, epoch, settings.tune_epochs)
        for _ in tune(books, epochs(settings.prune_epochs + epoch), loss, optimizer):
            pass
    books.eval()
    books.write()
    return books.shared()


def _cosine(rate: float, epoch: int, epochs: int) -> float:
    return float(rate * 0.5 * (1 + np.cos(np.pi * epoch / epochs)))


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

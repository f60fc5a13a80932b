"""Deep Compression of a model on its data: prune, retrain, share weights, tune the codebooks; resumable.

Source: Han, Mao and Dally 2016, arXiv:1510.00149.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fewbits.compress import prune
from fewbits.compress.masks import Masks
from fewbits.compress.share import Shared, constrained, reassigned, share
from fewbits.compress.tune import Codebooks
from fewbits.errors import RecipeError
from fewbits.train.fit import Adam, Nesterov
from fewbits.train.step import InPrecision, Loss, Steps

Epochs = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
"""The (inputs, targets) of an epoch, by its number: the same each time, so that a run can be resumed."""

_ADAM = Adam(2e-3)
_HALVINGS = 6  # in the last sharing epochs about one weight in a hundred is free


@dataclass(frozen=True)
class Settings:
    """Targets and training settings, layer by layer.

    density: share of weights kept, by parameter name; centroids: k of each layer; price: cost of one bit of a code, in
    units of the variance of the layer's kept weights (0: plain k-means); prune_epochs: of gradual pruning and
    retraining together; share_epochs: of incremental sharing, while the remaining weights are trained to compensate
    (0: all at once); tune_epochs: of the codebooks; optimizer: of the weights, with the highest learning rate;
    share_rate: learning rate of the sharing epochs, as a fraction of that; tune_rate: Adam's for the codebooks;
    precision: of products in training (bfloat16 takes half the time where the CPU has it).
    """

    density: Mapping[str, float]
    centroids: Mapping[str, int]
    price: float = 0.0
    prune_epochs: int = 10
    share_epochs: int = 0
    tune_epochs: int = 3
    optimizer: Adam | Nesterov = _ADAM
    share_rate: float = 0.2
    tune_rate: float = 1e-3
    precision: torch.dtype = torch.float32
    pruning_share: float = 0.5
    """Part of the pruning epochs in which the density still falls."""

    def __post_init__(self) -> None:
        if self.density.keys() != self.centroids.keys() or not self.density:
            raise RecipeError("every compressed layer needs a density and a number of centroids")


@dataclass
class Progress:
    """The state of a run, from which it can be resumed.

    done: epochs of pruning and of tuning that are over; state: the model's tensors; masks: of the compressed layers.
    """

    stage: str = "prune"
    done: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)


def prunable(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters to compress: those with two or more axes. Biases and norms stay."""
    return tuple(name for name, parameter in model.named_parameters() if parameter.ndim > 1)


def prune_and_retrain(model: nn.Module, epochs: Epochs, settings: Settings, progress: Progress,
                      keep: Callable[[Progress], None] = lambda _: None, loss: Loss = F.cross_entropy) -> Masks:
    """Lowers the density of each layer by a cubic schedule while training, then trains on under fixed masks.

    keep: called after each epoch; progress: where to go on. Masks are chosen anew at every epoch of the falling
    part. The learning rate falls to zero as a half cosine.
    """
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name] for name in settings.density}
    if progress.state:
        model.load_state_dict(progress.state)
    optimizer = settings.optimizer(list(parameters.values()))
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
        _train(model, epochs(epoch), loss, optimizer, _cosine(settings.optimizer.rate, epoch, settings.prune_epochs),
               settings.precision, epoch)
        progress.done, progress.state, progress.masks = epoch + 1, _copy(model), dict(masks.masks)
        progress.optimizer = optimizer.state_dict()
        keep(progress)
    model.eval()
    return masks


def share_layers(model: nn.Module, settings: Settings, masks: Mapping[str, Tensor]) -> dict[str, Shared]:
    """Clusters each layer's remaining weights, optimally for squared error, or for squared error and bits."""
    parameters = dict(model.named_parameters())
    shared = {}
    for name, k in settings.centroids.items():
        weight, mask = parameters[name].detach().cpu().numpy(), masks[name].cpu().numpy()
        price = settings.price * float(np.var(weight[mask])) if settings.price and mask.any() else 0.0
        shared[name] = constrained(weight, k, price, mask=mask) if price else share(weight, k, mask=mask)
    return shared


def share_and_retrain(model: nn.Module, epochs: Epochs, settings: Settings, masks: Mapping[str, Tensor],
                      loss: Loss = F.cross_entropy) -> dict[str, Shared]:
    """As `share_layers`, but incrementally: the weights nearest to their centroid take its value first, and the free
    ones are trained to compensate; half of them at first, then half of the rest, and so on.

    Centroids stay those of the start. Source: Zhou et al. 2017, arXiv:1702.03044 (INQ), with codebooks for its
    powers of two.
    """
    shared = share_layers(model, settings, masks)
    if not settings.share_epochs:
        return shared
    parameters = dict(model.named_parameters())
    prices = {name: settings.price * float(parameters[name].detach()[masks[name]].var(correction=0))
              if settings.price and masks[name].any() else 0.0 for name in shared}
    optimizer = settings.optimizer(list(parameters.values()))
    holder = Masks(model, masks)
    holder.hold(optimizer)
    for epoch in range(settings.share_epochs):
        part = 1 - 0.5 ** (1 + _HALVINGS * epoch / settings.share_epochs)
        values = {name: torch.from_numpy(one.dense()).to(parameters[name].device) for name, one in shared.items()}
        free = {name: _farthest(parameters[name], values[name], masks[name], 1 - part) for name in shared}
        holder.change(free, values)
        _train(model, epochs(settings.prune_epochs + epoch), loss, optimizer,
               _cosine(settings.share_rate * settings.optimizer.rate, epoch, settings.share_epochs),
               settings.precision, epoch)
        shared = {name: reassigned(one, parameters[name].detach().cpu().numpy(), prices[name])
                  for name, one in shared.items()}
    model.eval()
    return shared


def tune_codebooks(model: nn.Module, shared: Mapping[str, Shared], epochs: Epochs,
                   settings: Settings, loss: Loss = F.cross_entropy) -> dict[str, Shared]:
    """Trains centroids (and biases) with Adam; also writes the shared weights into the model."""
    books = Codebooks(model, shared)
    optimizer = torch.optim.Adam([parameter for parameter in books.parameters() if parameter.requires_grad])
    for epoch in range(settings.tune_epochs):
        _train(books, epochs(settings.prune_epochs + settings.share_epochs + epoch), loss, optimizer,
               _cosine(settings.tune_rate, epoch, settings.tune_epochs), settings.precision, epoch)
    books.eval()
    books.write()
    return books.shared()


def _train(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], loss: Loss, optimizer: Optimizer, rate: float,
           precision: torch.dtype, epoch: int) -> None:
    """One epoch at one learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    model.train()
    step = Steps(InPrecision(model, precision), optimizer, loss)
    for number, (x, y) in enumerate(batches):
        step.take(x, y, f"step {number + 1} of epoch {epoch + 1}")


def _farthest(weight: Tensor, value: Tensor, mask: Tensor, part: float) -> Tensor:
    """bool: of the weights that are kept, the `part` that lie farthest from their value."""
    off = (weight.detach() - value).abs()[mask]
    chosen = torch.zeros_like(mask)
    chosen[mask] = prune.by_density(off, part)
    return chosen


def _cosine(rate: float, epoch: int, epochs: int) -> float:
    return float(rate * 0.5 * (1 + np.cos(np.pi * epoch / epochs)))


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

"""A plain training loop for classifiers in floating point."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fewbits.data.normalize import Normalize
from fewbits.data.shifted import Shifted
from fewbits.data.split import Split
from fewbits.train.fit import Nesterov, fit
from fewbits.train.step import InPrecision


def initialised(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `build` makes when torch's random numbers start at `seed`; the caller's stay untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def random_tensors(build: Callable[[], nn.Module], net: nn.Module, seed: int) -> list[str]:
    """Names of the parameters and buffers of `net`, which `build` made at `seed`, that are other numbers at another
    seed: nobody loaded them. Builds the network once more."""
    other = initialised(build, seed + 1).state_dict()
    return [name for name, tensor in net.state_dict().items()
            if name not in other or other[name].shape != tensor.shape or not torch.equal(other[name], tensor)]


def train(
    model: nn.Module,
    split: Split,
    *,
    epochs: int,
    normalize: Normalize | None = None,
    batch_size: int = 32,
    rate: float = 0.05,
    weight_decay: float = 5e-4,
    shift: int = 0,
    precision: torch.dtype = torch.float32,
    seed: int = 0,
    checkpoint: Path | None = None,
    quiet: bool = False,
) -> tuple[float, ...]:
    """Train a classifier in place with Nesterov SGD under a one-cycle rate; leaves it in eval mode.

    model: float32 [B, ...] -> logits [B, classes], trained on the device it is on. rate: the highest
    learning rate. shift: pixels by which each batch of images is moved at most (`data/shifted.py`). precision:
    of products while it learns; weights stay as they are. checkpoint: as for `fit`. seed: decides the order of
    examples, the shifts and any dropout; the same seed gives the same weights (same machine, versions, thread count),
    and the caller's random numbers stay untouched. Returns the mean cross-entropy of each epoch, in nats. Raises
    DataError when the split does not fit the model, TrainingError when the loss is no longer finite.
    Source: one-cycle as Smith and Topin 2017, arXiv:1708.07120.
    """
    def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)

    batches = Shifted(split.batches(batch_size, normalize, torch.Generator().manual_seed(seed)), shift,
                      torch.Generator().manual_seed(seed))
    learner = model if precision == torch.float32 else InPrecision(model, precision)
    return fit(learner, batches, epochs=epochs, optimizer=Nesterov(rate, weight_decay=weight_decay), schedule=one_cycle,
               seed=seed, checkpoint=checkpoint, quiet=quiet)

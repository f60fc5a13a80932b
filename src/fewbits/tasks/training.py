"""A plain training loop for classifiers in floating point."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from fewbits.errors import DataError
from fewbits.tasks.normalize import Normalize
from fewbits.tasks.split import Split


def initialised(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `build` makes when torch's random numbers start at `seed`; the caller's stay untouched."""
    with _seeded(seed, torch.device("cpu")):
        return build()


def train(
    model: nn.Module,
    split: Split,
    *,
    epochs: int,
    normalize: Normalize | None = None,
    batch_size: int = 32,
    rate: float = 0.05,
    weight_decay: float = 5e-4,
    seed: int = 0,
    quiet: bool = False,
) -> tuple[float, ...]:
    """Train a classifier in place with Nesterov SGD under a one-cycle rate; leaves it in eval mode.

    model: float32 [B, ...] -> logits [B, classes], trained on the device it is on. rate: the highest
    learning rate. seed: decides the order of examples and any dropout; the same seed gives the same weights
    (same machine, versions, thread count), and the caller's random numbers stay untouched. Returns the mean
    cross-entropy of each epoch, in nats. Raises DataError when the split does not fit the model or the loss
    is no longer finite.
    Source: one-cycle as Smith and Topin 2017, arXiv:1708.07120.
    """
    if epochs < 1:
        raise DataError(f"Training for {epochs} epochs does nothing; give 1 or more.")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise DataError(f"This {type(model).__name__} has no parameters to train; use it as it is.")
    device = parameters[0].device
    batches = split.batches(batch_size, normalize, torch.Generator().manual_seed(seed))
    optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=weight_decay, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=epochs * len(batches))
    losses: list[float] = []
    with _seeded(seed, device), _progress(quiet) as progress:
        bar = progress.add_task("train", total=epochs * len(batches), loss=math.nan)
        model.train()
        for epoch in range(epochs):
            total = 0.0
            for step, (x, y) in enumerate(batches):
                loss = _loss(model(x.to(device)), y.to(device))
                value = loss.item()
                if not math.isfinite(value):
                    raise DataError(
                        f"The loss is {value} at step {step + 1} of epoch {epoch + 1}; "
                        f"look at the data for NaN, or lower the learning rate ({rate:g})."
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += value * len(y)
                progress.update(bar, advance=1, loss=value)
            losses.append(total / len(split))
    model.eval()
    return tuple(losses)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.ndim != 2 or int(labels.max()) >= logits.shape[1]:
        raise DataError(
            f"A label is {int(labels.max())} and the network gives {list(logits.shape)} "
            f"for a batch of {len(labels)}; use a network with one output per class."
        )
    return F.cross_entropy(logits, labels)


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own random numbers, started at `seed` on the CPU and on `device`, and put back afterwards."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield

"""The training loop: gradient steps over batches in order, resumable to the same bytes."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from fewbits.errors import CollapseWarning, DataError
from fewbits.processes import ALONE, Processes
from fewbits.progress import steps as steps_shown
from fewbits.quant.simulation import Simulation
from fewbits.train.distillation import Distillation
from fewbits.train.kept import Kept, Run, called, job_of
from fewbits.train.parameters import Groups, parameter_groups, with_range_rate
from fewbits.train.step import Loss, Steps


class Batches(Iterable[tuple[Tensor, Tensor]], Sized, Protocol):
    """Re-iterable batches of inputs and labels; each pass may have another order."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch of training came to. number: from 1; loss: mean over its examples; score: what `evaluate` gave
    after it, None without one; rate: the learning rate at its end."""

    number: int
    loss: float
    score: float | None
    rate: float


MakeOptimizer = Callable[[Groups], Optimizer]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980). rate: at the start; range_rate: that of learned ranges, in units of
    `rate`."""

    rate: float = 1e-3
    weight_decay: float = 0.0
    range_rate: float = 1.0

    def __call__(self, parameters: Groups) -> Optimizer:
        return torch.optim.Adam(with_range_rate(parameters, self.range_rate * self.rate), self.rate,
                                weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Nesterov:
    """Stochastic gradient descent with Nesterov's momentum. rate: at the start; range_rate: that of learned ranges, in
    units of `rate`."""

    rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    range_rate: float = 1.0

    def __call__(self, parameters: Groups) -> Optimizer:
        return torch.optim.SGD(with_range_rate(parameters, self.range_rate * self.rate), self.rate, self.momentum,
                               weight_decay=self.weight_decay, nesterov=True)


def cosine(optimizer: Optimizer, steps: int) -> LRScheduler:
    """From the full rate to 0 along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return LambdaLR(optimizer, lambda step: _half_cosine(step, steps))


@dataclass(frozen=True)
class WarmedCosine:
    """`cosine` whose rate rises evenly over a first share of the steps (Goyal et al. 2017, arXiv:1706.02677, §2.2)."""

    share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise DataError(f"a warm-up takes a share of the steps from 0 to below 1, not {self.share:g}")

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        rising = max(self.share * steps, 1)
        return LambdaLR(optimizer, lambda step: min((step + 1) / rising, 1) * _half_cosine(step, steps))


def _half_cosine(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))


def fit(net: nn.Module, batches: Batches, *, epochs: int, optimizer: MakeOptimizer = Adam(),
        schedule: MakeSchedule = cosine, loss: Loss = F.cross_entropy, distillation: Distillation | None = None,
        seed: int = 0, checkpoint: str | Path | None = None, save_every: int | None = None,
        evaluate: Callable[[nn.Module], float] | None = None, on_epoch: Callable[[Epoch], None] | None = None,
        processes: Processes = ALONE, quiet: bool = False) -> tuple[float, ...]:
    """Trains a Simulation, or any network, in place on the device it is on; leaves it in evaluation mode.

    batches: (inputs, labels), re-iterable and sized; a random order of its own goes on from epoch to epoch. loss: of
    outputs and labels, a mean; distillation: adds a teacher's. seed: of torch's random numbers while it runs (dropout,
    stochastic methods); the caller's stay untouched. checkpoint: a file that is written whole after each epoch, and
    every `save_every` steps; training goes on from it when it exists, to the same bytes. It belongs to one training:
    its start weights, recipe, optimizer, schedule, loss, teacher, length, seed and data. evaluate: called with the
    network after each epoch, in evaluation mode and without gradients, such as its accuracy on validation images;
    on_epoch: called with what each epoch came to, those before a resumption first. processes: among several each takes
    its rows of every batch, gradients and what ranges are learned from are of the whole batch, and process 0 writes the
    checkpoint; batch norm alone sees each process's rows by themselves, dropout the same draws in each. Returns the
    mean loss of each epoch. Warns (CollapseWarning) where a learned range is 0 after an epoch. Raises DataError for
    data that does not fit, TrainingError when the loss is not finite, naming step and layer, FileError for a
    checkpoint that is damaged or of another training, by what is other.
    """
    if epochs < 1:
        raise DataError(f"Training for {epochs} epochs does nothing; give 1 or more.")
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not parameters:
        raise DataError(f"This {type(net).__name__} has no parameters to train; use it as it is.")
    if len(batches) < 1:
        raise DataError("There are no batches to train on; give at least one.")
    device, optimize = parameters[0].device, optimizer(parameter_groups(net))
    steps = epochs * len(batches)
    simulations = [module for module in net.modules() if isinstance(module, Simulation)]
    step, run = Steps(net, optimize, loss, distillation, processes), Run(net, optimize, schedule(optimize, steps))
    for simulation in simulations:
        for quantizer in simulation.quantizers():
            quantizer.processes = processes
    kept = None
    if checkpoint is not None:
        job = job_of(net, optimize, distillation, {
            "length": f"{len(batches)} batches, {epochs} epochs", "seed": str(seed), "schedule": called(schedule),
            "loss": called(loss)} | ({"processes": str(processes.count)} if processes.count > 1 else {}))
        kept = Kept(Path(checkpoint), run, job, len(batches), steps)
    with _seeded(seed, device), steps_shown(quiet or not processes.writes) as progress:
        done = 0 if kept is None else kept.open(device)
        bar = progress.add_task("train", total=steps, completed=done, shown="")
        net.train()
        told, scored = 0, ""
        for epoch in range(epochs):
            if kept is not None:
                kept.begin(epoch)
            for number, (x, y) in enumerate(batches):
                if kept is not None and kept.skips(x, y):
                    continue  # done before a resumption: drawn again, so that the order goes on where it was
                for simulation in simulations:
                    simulation.progress(run.step / steps)
                value = step.take(x, y, f"step {number + 1} of epoch {epoch + 1}")
                run.schedule.step()
                last = number == len(batches) - 1
                run.count(value * len(y), len(y), last)
                progress.update(bar, advance=1, shown=f"loss {value:.4f}{scored}")
                if last:
                    processes.alike(net)
                    _warn_of_collapse(simulations, epoch + 1)
                    run.rates.append(float(optimize.param_groups[0]["lr"]))
                    run.scores.append(None if evaluate is None else _scored(net, evaluate))
                    scored = "" if run.scores[-1] is None else f", score {run.scores[-1]:.4f}"
                due = last or (save_every is not None and run.step % save_every == 0)
                if kept is not None and due and processes.writes:
                    kept.save(device)
            told = _tell(run, told, on_epoch)
        if kept is not None:
            kept.take_up()  # where all was done before
        _tell(run, told, on_epoch)
    for simulation in simulations:
        for quantizer in simulation.quantizers():
            quantizer.processes = ALONE
    net.eval()
    return tuple(run.losses)


def _scored(net: nn.Module, evaluate: Callable[[nn.Module], float]) -> float:
    """A score of the network as it is; training and torch's random numbers go on as if nothing had been asked."""
    net.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        score = float(evaluate(net))
    net.train()
    return score


def _tell(run: Run, told: int, on_epoch: Callable[[Epoch], None] | None) -> int:
    """Reports the epochs that were not yet; how many are done."""
    if on_epoch is not None:
        for number in range(told, len(run.losses)):
            on_epoch(Epoch(number + 1, run.losses[number], run.scores[number], run.rates[number]))
    return len(run.losses)


def _warn_of_collapse(simulations: list[Simulation], epoch: int) -> None:
    """Warns (CollapseWarning) where a learned range has become 0; it may still recover."""
    sites = [quantizer.site for simulation in simulations for quantizer in simulation.quantizers()
             if quantizer.collapsed]
    if sites:
        more = f" and {len(sites) - 1} more" if len(sites) > 1 else ""
        warnings.warn(f"after epoch {epoch} the learned range of {sites[0]!r}{more} is 0, and the network may not "
                      "learn: take a lower learning rate", CollapseWarning, stacklevel=3)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's random numbers on the CPU and on `device`, and restores their state afterwards."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield

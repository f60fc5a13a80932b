"""Training checkpoints, and the job that a checkpoint belongs to."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fewbits.errors import FileError
from fewbits.numerics.finite import not_finite
from fewbits.quant.simulation import Simulation
from fewbits.storage.checkpoint import Job, read_checkpoint, write_checkpoint
from fewbits.storage.digests import add_batch, digest_of_state
from fewbits.train.distillation import Distillation
from fewbits.train.optimizer_state import fits_optimizer


class Run:
    """The state of a training run."""

    def __init__(self, net: nn.Module, optimizer: Optimizer, schedule: LRScheduler):
        self.net, self.optimizer, self.schedule = net, optimizer, schedule
        self.step, self.losses, self.total, self.seen = 0, [], 0.0, 0
        self.scores: list[float | None] = []  # of each epoch, where somebody scores them
        self.rates: list[float] = []  # at the end of each epoch

    def count(self, loss: float, examples: int, last: bool) -> None:
        self.step, self.total, self.seen = self.step + 1, self.total + loss, self.seen + examples
        if last:
            self.losses.append(self.total / self.seen)
            self.total, self.seen = 0.0, 0


def job_of(net: nn.Module, optimizer: Optimizer, distillation: Distillation | None, facts: Mapping[str, str]) -> Job:
    """All that decides what a training comes to, but for its data, which are looked at as they come. facts: those that
    are not in the network, its optimizer and its teacher."""
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    recipe = "\n".join(str(module.plan) for module in net.modules() if isinstance(module, Simulation))
    teacher = "none"
    if distillation is not None:
        weights = digest_of_state(distillation.teacher.state_dict())
        teacher = f"{distillation.temperature} {distillation.share} {weights}"
    return Job("training", {
        **facts, "recipe": hashlib.sha256(recipe.encode()).hexdigest(),
        "start weights": digest_of_state(net.state_dict()), "optimizer": f"{type(optimizer).__name__} {groups}",
        "teacher": teacher})


def called(function: Any) -> str:
    """The name of a function, or of a callable's class; with its settings where it is a dataclass."""
    if is_dataclass(function) and not isinstance(function, type):
        return f"{type(function).__module__}.{function}"
    made = function if hasattr(function, "__qualname__") else type(function)
    return f"{made.__module__}.{made.__qualname__}"


class Kept:
    """A training's checkpoint: written, and taken up once the batches that were done before have come by again, the
    same as they were."""

    def __init__(self, path: Path, run: Run, job: Job, batches: int, steps: int):
        self._path, self._run, self._job, self._batches, self._steps = path, run, job, batches, steps
        self._data = hashlib.sha256()
        self._begun: list[Tensor] = []  # torch's random state at the start of each epoch
        self._waiting: dict[str, Any] | None = None  # what was read, until it is taken up
        self._drawn = 0  # batches

    def open(self, device: torch.device) -> int:
        """Reads the file where there is one, and changes nothing yet; how many steps were done."""
        if not os.path.lexists(self._path):
            return 0
        state = read_checkpoint(self._path, self._job)
        self._check(state)
        self._waiting, self._device = state, device
        self._begun = list(state["begun"])
        return state["step"]

    def begin(self, epoch: int) -> None:
        """Before the batches of an epoch are drawn."""
        if self._waiting is not None and epoch * self._batches >= self._waiting["step"]:
            self.take_up()
        if self._waiting is not None:
            torch.set_rng_state(self._begun[epoch])
        elif len(self._begun) == epoch:
            self._begun.append(torch.get_rng_state())

    def skips(self, x: Tensor, y: Tensor) -> bool:
        """Whether the step of this batch was done before."""
        if self._waiting is not None and self._drawn == self._waiting["step"]:
            self.take_up()
        add_batch(self._data, (x, y))
        self._drawn += 1
        return self._waiting is not None

    def take_up(self) -> None:
        """Puts what was read in place. Raises FileError when the batches so far are not those of the training that was
        kept; the network is then as it was."""
        if self._waiting is None:
            return
        state, self._waiting = self._waiting, None
        if self._data.hexdigest() != state["data"]:
            raise self._refused("is of another job, with other data, or the same in another order (a shuffled loader "
                                "needs a generator of its own)")
        run = self._run
        try:
            run.optimizer.load_state_dict(state["optimizer"])
            run.schedule.load_state_dict(state["schedule"])
            run.net.load_state_dict(state["net"])
            torch.set_rng_state(state["random"])
            if self._device.type == "cuda" and "cuda" in state:
                torch.cuda.set_rng_state(state["cuda"], self._device)
        except Exception as error:  # torch's many kinds, over a file that somebody forged
            raise self._refused(f"is no checkpoint of this training ({type(error).__name__})") from error
        run.step, run.losses, run.total, run.seen = (state[key] for key in ("step", "losses", "total", "seen"))
        run.scores, run.rates = state["scores"], state["rates"]

    def save(self, device: torch.device) -> None:
        run = self._run
        state = {"net": run.net.state_dict(), "optimizer": run.optimizer.state_dict(),
                 "schedule": _numbers(run.schedule.state_dict()), "random": torch.get_rng_state(),
                 "begun": self._begun, "data": self._data.hexdigest(),
                 "step": run.step, "losses": run.losses, "total": run.total, "seen": run.seen, "scores": run.scores,
                 "rates": run.rates}
        if device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(device)
        write_checkpoint(self._path, self._job, state)

    def _check(self, state: Any) -> None:
        """Raises FileError unless a state is such as `save` writes for this training."""
        kinds = {"net": dict, "optimizer": dict, "schedule": dict, "random": Tensor, "begun": list, "data": str,
                 "step": int, "losses": list, "total": float, "seen": int, "scores": list, "rates": list}
        if not isinstance(state, dict) or not all(type(state.get(key)) is kind for key, kind in kinds.items()):
            raise self._refused("is no checkpoint of this training")
        step = state["step"]
        epochs, rest = divmod(step, self._batches)
        if not (0 < step <= self._steps and state["seen"] >= 0
                and len(state["losses"]) == len(state["scores"]) == len(state["rates"]) == epochs
                and all(isinstance(number, float) for key in ("losses", "rates") for number in state[key])
                and all(score is None or isinstance(score, float) for score in state["scores"])):
            raise self._refused(f"counts {step} steps of {self._steps}, which do not agree with its losses")
        if len(state["begun"]) != epochs + bool(rest) or not all(map(_is_random_state, (state["random"],
                                                                                        *state["begun"]))):
            raise self._refused("has no states of torch's random numbers")
        net = self._run.net.state_dict()
        if state["net"].keys() != net.keys():
            raise self._refused("is of a network with other tensors")
        for name, tensor in state["net"].items():
            if not (isinstance(tensor, Tensor) and tensor.shape == net[name].shape and tensor.dtype == net[name].dtype):
                raise self._refused(f"has {name!r} in another shape or type than the network")
            if kind := not_finite(tensor):
                raise self._refused(f"has {kind} in {name!r}")
        if not fits_optimizer(state["optimizer"], self._run.optimizer, step):
            raise self._refused("has an optimizer's state that does not fit the network")
        if not _fits_schedule(state["schedule"], _numbers(self._run.schedule.state_dict()), step):
            raise self._refused("has the state of another schedule")

    def _refused(self, reason: str) -> FileError:
        return FileError(f"{self._path} {reason}: remove it to begin anew, or choose another file")


def _is_random_state(state: Any) -> bool:
    """Whether torch's random numbers can go on from it: a generator of its own takes it."""
    try:
        torch.Generator().set_state(state)
    except (RuntimeError, TypeError):
        return False
    return True


def _numbers(state: dict[str, Any]) -> dict[str, Any]:
    """A schedule's state without its functions, which belong to the caller."""
    return {key: value for key, value in state.items() if key != "lr_lambdas"} | (
        {"lr_lambdas": [None] * len(state["lr_lambdas"])} if "lr_lambdas" in state else {})


def _fits_schedule(kept: Mapping[str, Any], own: Mapping[str, Any], steps: int) -> bool:
    """Whether a schedule's state, read from a file, is that of this one after so many steps."""
    return (kept.keys() == own.keys() and all(type(value) is type(own[name]) for name, value in kept.items())
            and all(kept[name] == own[name] for name in ("base_lrs", "lr_lambdas") if name in own)
            and kept.get("last_epoch", steps) == steps)

"""Deep Compression of a network on data: ever stronger attempts, until the goal is met or lost; resumable."""

import copy
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from fewbits.artifact.weights import save_weights
from fewbits.compress.flow import Progress, Settings, prunable, prune_and_retrain, share_layers, tune_codebooks
from fewbits.data.normalize import Normalize
from fewbits.data.split import DataSet, Split
from fewbits.errors import DataError, FileError
from fewbits.numerics.finite import not_finite
from fewbits.progress import track
from fewbits.report.accuracy import evaluate
from fewbits.storage.checkpoint import Job, read_checkpoint, write_checkpoint
from fewbits.storage.digests import digest_of_state
from fewbits.train.optimizer_state import fits_optimizer

_LADDER = (0.3, 0.2, 0.13, 0.08, 0.05, 0.035, 0.025, 0.018)
"""Densities of the layers in the middle, attempt by attempt; the first and the last layer keep their root."""
_CENTROIDS, _PRICE = 32, 0.02
_BATCH = 128
_VALIDATION = 12  # one in so many training images, the last ones, is kept back to choose by


@dataclass(frozen=True)
class Goal:
    """ratio: how many times smaller; drop: percentage points that may be lost. At least one is given."""

    ratio: float | None
    drop: float | None

    def allows(self, drop: float) -> bool:
        return self.drop is None or drop <= self.drop


@dataclass(frozen=True)
class CompressJob:
    """What to compress, on what, and where to put it."""

    name: str
    net: nn.Module
    data: DataSet
    normalize: Normalize | None
    goal: Goal
    out: Path
    epochs: int
    seed: int


@dataclass
class _State:
    """What is kept beside the output until the job is done."""

    attempt: int
    progress: Progress
    reached: list[tuple[float, float]]  # (times smaller, points lost) of each attempt


def run(job: CompressJob, console: Console) -> None:
    """Writes the best attempt to `job.out`. Killed and started again, it goes on at the epoch it was in.

    Attempts prune ever more, each going on from the weights of the one before. With a ratio, the first that
    reaches it ends the search; without, the first that loses too much. Accuracy is that of validation images kept
    back from training. Raises DataError when no attempt meets the goal; what was at `job.out` then stays.
    """
    train, validation = _kept_back(job.data.train)
    before = _points(job.net, validation, job.normalize)
    console.print(f"{job.name}: {before:.2f} % of {len(validation)} validation images", highlight=False)
    beside = job.out.with_name(job.out.name + ".progress")
    belongs_to = _belongs_to(job)
    state = _taken_up(beside, job, belongs_to, console)
    found = False
    for attempt in range(state.attempt, len(_LADDER)):
        settings = _settings(job.net, _LADDER[attempt], job.epochs)

        def epochs(number: int, attempt: int = attempt) -> Iterable[tuple[Tensor, Tensor]]:
            seed = 1000 * (1000 * job.seed + attempt) + number
            batches = train.batches(_BATCH, job.normalize, torch.Generator().manual_seed(seed))
            return track(batches, f"attempt {attempt + 1}, epoch {number + 1}")

        masks = prune_and_retrain(job.net, epochs, settings, state.progress,
                                  lambda _: _keep(beside, belongs_to, state))
        shared_net = copy.deepcopy(job.net)
        shared = share_layers(shared_net, settings, masks.masks)
        shared = tune_codebooks(shared_net, shared, epochs, settings)
        drop = before - _points(shared_net, validation, job.normalize)
        tensors = dict(shared_net.state_dict())
        decoded = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        trial = job.out.with_name(job.out.name + ".trial")
        ratio = decoded / save_weights(tensors, trial, shared)
        state.reached.append((ratio, drop))
        console.print(f"attempt {attempt + 1}: density {masks.density():.3f}, {ratio:.1f}x smaller, "
                      f"{drop:+.2f} points lost", highlight=False)
        if job.goal.allows(drop) and (job.goal.ratio is None or ratio >= job.goal.ratio):
            trial.replace(job.out)
            found = True
        trial.unlink(missing_ok=True)
        if not job.goal.allows(drop) or (job.goal.ratio is not None and ratio >= job.goal.ratio):
            break
        state.attempt = attempt + 1
        state.progress = Progress(state=state.progress.state, masks=state.progress.masks)
        _keep(beside, belongs_to, state)
    beside.unlink(missing_ok=True)
    if not found and not (job.goal.ratio is None and state.attempt):
        told = ", ".join(f"{ratio:.1f}x at {drop:+.2f} points" for ratio, drop in state.reached)
        raise DataError(f"{job.name} did not meet the goal (reached: {told}): allow more loss, a smaller ratio, or "
                        "more --epochs")


def _settings(net: nn.Module, density: float, epochs: int) -> Settings:
    names = prunable(net)
    ends = (names[0], names[-1])
    return Settings({name: density ** (0.5 if name in ends else 1) for name in names},
                    dict.fromkeys(names, _CENTROIDS), _PRICE, prune_epochs=epochs, tune_epochs=max(1, epochs // 4))


def _kept_back(train: Split) -> tuple[Split, Split]:
    kept = len(train) // _VALIDATION
    if not kept or train.y is None:
        raise DataError(f"{len(train)} training images are too few, or without labels: give labelled ones")
    return train.subset(range(len(train) - kept)), train.subset(range(len(train) - kept, len(train)))


def _points(net: nn.Module, split: Split, normalize: Normalize | None) -> float:
    net.eval()
    return 100 * evaluate(net, split.batches(500, normalize)).mean


def _belongs_to(job: CompressJob) -> Job:
    """What must be the same for kept work to be taken up."""
    return Job("compression", {
        "network": job.name, "start weights": digest_of_state(job.net.state_dict()), "data": job.data.train.digest(),
        "normalisation": str(job.normalize), "goal": str(job.goal), "length": f"{job.epochs} epochs",
        "seed": str(job.seed)})


def _keep(path: Path, belongs_to: Job, state: _State) -> None:
    write_checkpoint(path, belongs_to, {"attempt": state.attempt, "progress": vars(state.progress),
                                        "reached": state.reached})


def _taken_up(path: Path, job: CompressJob, belongs_to: Job, console: Console) -> _State:
    """Where the job was, or its beginning. Raises FileError for kept work of another job, damaged or forged."""
    if not os.path.lexists(path):
        return _State(0, Progress(), [])
    kept = read_checkpoint(path, belongs_to)
    if not _possible(kept, job):
        raise FileError(f"{path} is no progress of this compression: remove it to begin anew")
    console.print(f"going on from {path}", highlight=False)
    return _State(kept["attempt"], Progress(**kept["progress"]), [(ratio, drop) for ratio, drop in kept["reached"]])


def _possible(kept: Any, job: CompressJob) -> bool:
    """Whether kept work is such as `_keep` writes for this job."""
    if not isinstance(kept, dict) or kept.keys() != {"attempt", "progress", "reached"}:
        return False
    attempt, progress, reached = kept["attempt"], kept["progress"], kept["reached"]
    if type(attempt) is not int or not 0 <= attempt < len(_LADDER) or not isinstance(progress, dict):
        return False
    if progress.keys() != vars(Progress()).keys() or type(progress["done"]) is not int or not (
            0 <= progress["done"] <= job.epochs and progress["stage"] == Progress().stage
            and all(isinstance(progress[name], dict) for name in ("state", "optimizer", "masks"))):
        return False
    steps = job.epochs * math.ceil(len(job.data.train) / _BATCH)
    if progress["optimizer"] and not fits_optimizer(
            progress["optimizer"], _settings(job.net, _LADDER[attempt], job.epochs).optimizer(
                list(job.net.parameters())), steps):
        return False
    state, parameters = job.net.state_dict(), dict(job.net.named_parameters())
    return (_alike(progress["state"], state) and _alike(progress["masks"], {
                name: torch.ones_like(parameters[name], dtype=torch.bool) for name in prunable(job.net)})
            and isinstance(reached, list)
            and all(isinstance(pair, list) and len(pair) == 2 and all(
                type(number) is float and math.isfinite(number) for number in pair) for pair in reached))


def _alike(kept: Mapping[str, Any], own: Mapping[str, Tensor]) -> bool:
    """Whether kept tensors are none, or all of these in shape and type, and finite."""
    return not kept or (kept.keys() == own.keys() and all(
        isinstance(tensor, Tensor) and tensor.shape == own[name].shape and tensor.dtype == own[name].dtype
        and not not_finite(tensor) for name, tensor in kept.items()))

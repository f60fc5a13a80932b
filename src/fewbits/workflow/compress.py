"""Deep Compression of a network on data: ever stronger attempts, until the goal is met or lost; resumable."""

import copy
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from fewbits.artifact.weights import save_weights
from fewbits.compress.flow import Progress, Settings, prunable, prune_and_retrain, share_layers, tune_codebooks
from fewbits.data.normalize import Normalize
from fewbits.data.split import DataSet, Split
from fewbits.errors import DataError
from fewbits.files import write_whole
from fewbits.progress import track
from fewbits.report.accuracy import evaluate

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
class Job:
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


def run(job: Job, console: Console) -> None:
    """Writes the best attempt to `job.out`. Killed and started again, it goes on at the epoch it was in.

    Attempts prune ever more, each going on from the weights of the one before. With a ratio, the first that
    reaches it ends the search; without, the first that loses too much. Accuracy is that of validation images kept
    back from training. Raises DataError when no attempt meets the goal; what was at `job.out` then stays.
    """
    train, validation = _kept_back(job.data.train)
    before = _points(job.net, validation, job.normalize)
    console.print(f"{job.name}: {before:.2f} % of {len(validation)} validation images", highlight=False)
    beside = job.out.with_name(job.out.name + ".progress")
    state = _taken_up(beside, job, console)
    found = False
    for attempt in range(state.attempt, len(_LADDER)):
        settings = _settings(job.net, _LADDER[attempt], job.epochs)

        def epochs(number: int, attempt: int = attempt) -> Iterable[tuple[Tensor, Tensor]]:
            seed = 1000 * (1000 * job.seed + attempt) + number
            batches = train.batches(_BATCH, job.normalize, torch.Generator().manual_seed(seed))
            return track(batches, f"attempt {attempt + 1}, epoch {number + 1}")

        masks = prune_and_retrain(job.net, epochs, settings, state.progress,
                                  lambda _: _keep(beside, job, state))
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
        _keep(beside, job, state)
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


def _fingerprint(job: Job) -> str:
    """What must be the same for kept work to be taken up."""
    return json.dumps([job.name, job.data.name, len(job.data.train), job.epochs, job.seed, asdict(job.goal)])


def _keep(path: Path, job: Job, state: _State) -> None:
    buffer = io.BytesIO()
    torch.save({"job": _fingerprint(job), "attempt": state.attempt, "progress": asdict(state.progress),
                "reached": state.reached}, buffer)
    write_whole(path, buffer.getvalue())


def _taken_up(path: Path, job: Job, console: Console) -> _State:
    if path.is_file():
        try:
            kept = torch.load(path, weights_only=True)
            if kept["job"] == _fingerprint(job):
                console.print(f"going on from {path}", highlight=False)
                return _State(kept["attempt"], Progress(**kept["progress"]), kept["reached"])
        except Exception:  # a damaged file breaks the parser in more ways than it names
            console.print(f"{path} is damaged and is left out of account", highlight=False)
    return _State(0, Progress(), [])

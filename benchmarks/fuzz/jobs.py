"""Files that work goes on from, forged and taken up: checkpoints of training, of a repair and of a compression, the log
of a search, choices of engines, records of reproductions."""

import json
import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from benchmarks.fuzz.containers import reforged
from benchmarks.fuzz.mutate import alter, change, damaged
from benchmarks.fuzz.reader import written
from fewbits.capture.capture import capture
from fewbits.compress.flow import Progress, prune_and_retrain
from fewbits.data.split import DataSet, Split
from fewbits.engines import kept_choices
from fewbits.fold.fold import fold
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.reproduce.row import results
from fewbits.search.evaluations import Evaluations
from fewbits.search.problem import Problem
from fewbits.search.space import Space, menu
from fewbits.storage import container
from fewbits.train.fit import fit
from fewbits.workflow import compress

_DOCUMENT = "fewbits.checkpoint"
_WORDS = ({"tensor": ["tensor0", "float32"]}, {"dict": []}, [], 1e308, "float32", ["tensor1", "int64"])


def spoilt_checkpoint(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """Damaged, or with another state of the same job under right hashes."""
    dice = rng.random()
    if dice < 0.15:
        return damaged(data, rng), False
    if dice < 0.3:
        return reforged(data, rng, (_DOCUMENT,), _WORDS), True
    held = container.parse(data)
    tensors = {name: np.array(tensor) for name, tensor in held.tensors.items()}
    if dice < 0.5:
        name = rng.choice([name for name in tensors if name != _DOCUMENT])
        flat = tensors[name].reshape(-1).view(np.uint8)
        if flat.size:
            flat[rng.randrange(flat.size)] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        return container.build(tensors, held.writer), True
    document = json.loads(tensors[_DOCUMENT].tobytes())
    for _ in range(rng.choice((1, 1, 2))):
        if rng.random() < 0.6:
            alter(document["state"], rng)
        else:
            change(document["state"], rng, _WORDS)
    tensors[_DOCUMENT] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    return container.build(tensors, held.writer), True


class _Enough(Exception):  # noqa: N818, nothing went wrong
    """Ends work that is to be found half done."""


# ------------------------------------------------------------------------------------ training


def _fitted(path: Path, on_epoch: Callable[[Any], None] | None = None) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x, y = nn.Linear(2, 3), torch.rand(8, 2), torch.arange(8) % 3
        return fit(net, [(x[:4], y[:4]), (x[4:], y[4:])], epochs=2, checkpoint=path, on_epoch=on_epoch, quiet=True)


def training_checkpoint() -> bytes:
    """After one epoch of two."""
    def stop(_: Any) -> None:
        raise _Enough

    def write(path: Path) -> None:
        try:
            _fitted(path, stop)
        except _Enough:
            return

    return written(write)


def go_on_training(path: Path) -> Any:
    """The second epoch."""
    return _fitted(path)


# -------------------------------------------------------------------------------------- repair


@lru_cache(maxsize=1)
def _linear() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), torch.rand(6, 4)
    model = fold(capture(net, x))
    return model, x, calibrate(model, plan(model, "w4a8"), [x])


def go_on_rounding(path: Path) -> Any:
    """AdaRound, of which every layer is done."""
    _, x, simulation = _linear()
    return adaround(simulation, [x], schedule=Schedule(iterations=2), checkpoint=path)


# --------------------------------------------------------------------------------- compression


def _compression(path: Path) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(24, 1, 2, 2)
        split = Split(x, torch.arange(24) % 3)
    data = DataSet("made", split, split, split, 3)
    return compress.CompressJob("net", net, data, None, compress.Goal(0.01, None), path, 2, 0)


def _half_way(path: Path) -> None:
    """What is kept after the first epoch of two."""
    job = _compression(path.with_name("out"))
    train, _ = compress._kept_back(job.data.train)
    state = compress._State(0, Progress(), [])
    belongs = compress._belongs_to(job)

    def keep(_: Progress) -> None:
        compress._keep(path, belongs, state)
        raise _Enough

    try:
        prune_and_retrain(job.net, lambda _: train.batches(128, None), compress._settings(job.net, 0.3, 2),
                          state.progress, keep)
    except _Enough:
        return


def compression_progress() -> bytes:
    """After one epoch of two."""
    return written(_half_way)


def go_on_compressing(path: Path) -> Any:
    """The whole job, from there."""
    job = _compression(path.with_name("out"))
    path.replace(job.out.with_name("out.progress"))
    compress.run(job, Console(quiet=True))


# -------------------------------------------------------------------------------------- search


@lru_cache(maxsize=1)
def _problem() -> Problem:
    model, x, _ = _linear()
    return Problem.of(Space.of(model, "w8a8", menu("int", "minmax")), [x], [x])


def search_log() -> bytes:
    """Of three plans, each measured in two ways."""
    def write(path: Path) -> None:
        evaluations, groups = Evaluations(_problem(), path), len(_problem().space.groups)
        evaluations.measured([(number,) * groups for number in range(3)])
        evaluations.measured([(0,) * groups, (None,) * groups], "simulated")

    return written(write)


def go_on_searching(path: Path) -> Any:
    """What is known then."""
    return Evaluations(_problem(), path)._known


# --------------------------------------------------------------------------- choices and records


def choices() -> bytes:
    """Two."""
    told = {"fewbits engines": 1, "choices": {"a" * 32: ["native", "measured"], "b" * 32: ["torch", "faster"]}}
    return json.dumps(told).encode()


def read_choices(path: Path) -> Any:
    """A damaged file counts as empty."""
    return kept_choices._read(path)


def records() -> bytes:
    """Of two seeds."""
    one = {"seconds": 1.5, "machine": "here", "measured": {"float": 91.0}, "processor_seconds": 1.0, "note": ""}
    return json.dumps([one | {"seed": 0}, one | {"seed": 1}]).encode()


def read_records(path: Path) -> Any:
    """As the documents and `reproduce` read them."""
    path.replace(path.with_name("row.json"))
    return results(path.parent, "row")


def spoilt_lines(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """JSON, line by line, with one line altered, damaged, doubled or gone."""
    lines = data.split(b"\n")
    at, dice = rng.randrange(len(lines)), rng.random()
    if dice < 0.3 or not lines[at]:
        return damaged(data, rng), True
    if dice < 0.4:
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif dice < 0.5:
        del lines[at]
    else:
        document = json.loads(lines[at])
        (alter if rng.random() < 0.5 else lambda document, rng: change(document, rng, (None, "failed", "program", [])))(
            document, rng)
        lines[at] = json.dumps(document).encode()
    return b"\n".join(lines), True


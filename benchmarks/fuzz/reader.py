"""What a reader under the fuzz is, and the small model that files are of."""

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan

Spoil = Callable[[bytes, random.Random], tuple[bytes, bool]]


@dataclass(frozen=True)
class Reader:
    """good: the bytes of a sound file; name: what it is called; spoilt: (bytes, whether checksums are right) of a bad
    one; read: what is done with its path; signed: whether damage must be noticed."""

    name: str
    good: Callable[[], bytes]
    spoilt: Spoil
    read: Callable[[Path], Any]
    signed: bool = False


@lru_cache(maxsize=1)
def small_model() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).eval()
        x = torch.rand(4, 1, 6, 6)
    return net, x, fold(capture(net, x))


@lru_cache(maxsize=1)
def small_simulation() -> Any:
    _, x, model = small_model()
    return calibrate(model, plan(model, "w8a8"), [x])


def written(write: Callable[[Path], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()

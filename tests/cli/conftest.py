"""The command in this process: what it prints, and its exit code."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fewbits.cli.main import run


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def fewbits(monkeypatch, capsys):
    """Runs `fewbits …` and returns a Result."""
    def command(*arguments) -> Result:
        monkeypatch.setattr(sys, "argv", ["fewbits", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "160")
        code = 0
        try:
            run()
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return command


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder with a user's own network, its weights and its data."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "mynets.py").write_text("""
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

def other():
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 3))

def unsupported():
    class Net(nn.Module):
        def forward(self, x):
            return x.flatten(1).cumsum(1).cumprod(1)
    return Net()

def background():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
""")
    rng = np.random.default_rng(0)
    arrays = {f"{split}_x": rng.integers(0, 256, (n, 8, 8), dtype=np.uint8)
              for split, n in (("train", 64), ("test", 40))}
    labels = {f"{split}_y": rng.integers(0, 3, n) for split, n in (("train", 64), ("test", 40))}
    np.savez(folder / "data.npz", **arrays, **labels)
    floats = {name: (array / 255).astype(np.float32)[:, None] for name, array in arrays.items()}
    floats["train_x"][5, 0, 2, 2] = np.nan
    np.savez(folder / "nan.npz", **floats, **labels)
    sys.path.insert(0, str(folder))
    try:
        import mynets
        torch.manual_seed(0)
        torch.save(mynets.small().state_dict(), folder / "small.pt")
    finally:
        sys.path.remove(str(folder))
        del sys.modules["mynets"]
    return folder


@pytest.fixture(scope="session")
def saved(small, tmp_path_factory):
    """A model.fewbits that the command wrote, in a process of its own."""
    out = tmp_path_factory.mktemp("saved")
    done = subprocess.run(
        [sys.executable, "-m", "fewbits", "quantize", "mynets:small", "--weights", "small.pt", "--data", "npz:data.npz",
         "--mean", "0.5", "--std", "0.25", "--out", str(out)], cwd=small, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out

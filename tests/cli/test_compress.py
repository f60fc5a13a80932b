"""`fewbits compress`, `decompress` and `inspect` of what they write."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fewbits.artifact.weights import WeightsFile
from fewbits.tasks.registry import resolve


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    state = {"a.weight": torch.randn(40, 50, generator=generator), "a.bias": torch.randn(40, generator=generator),
             "half": torch.randn(30, 30, generator=generator).to(torch.bfloat16), "count": torch.tensor(3)}
    save_file(state, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_without_data(fewbits, weights: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "net.fewbits", tmp_path / "back.safetensors"
    done = fewbits("compress", weights, "--bits", 3, "--out", out)
    assert done.code == 0, done.err
    assert f"{out.stat().st_size}" in done.out
    shown = fewbits("inspect", out)
    assert shown.code == 0
    assert "codebook" in shown.out
    assert "entropy" in shown.out
    assert fewbits("decompress", out, "--out", back).code == 0
    before, after = load_file(weights), load_file(back)
    assert {name: (t.dtype, t.shape) for name, t in before.items()} == {
        name: (t.dtype, t.shape) for name, t in after.items()}
    assert len(after["a.weight"].unique()) == 8
    assert torch.equal(before["a.bias"], after["a.bias"])
    assert ((before["a.weight"] - after["a.weight"]) ** 2).mean() < 0.04


def test_lossless(fewbits, weights: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "net.fewbits", tmp_path / "back.safetensors"
    assert fewbits("compress", weights, "--lossless", "--out", out).code == 0
    assert fewbits("decompress", out, "--out", back).code == 0
    after = load_file(back)
    assert all(torch.equal(tensor, after[name]) for name, tensor in load_file(weights).items())


def test_a_target_size_without_data(fewbits, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.fewbits"
    assert fewbits("compress", weights, "--target-size", "5x", "--out", out).code == 0
    file = WeightsFile(out)
    assert file.decoded_bytes() / file.size >= 5
    failed = fewbits("compress", weights, "--target-size", "500x", "--out", out)
    assert failed.code == 2
    assert "give --data" in failed.err


@pytest.mark.parametrize(("arguments", "told"), [
    (["lenet5"], "no weights file"), (["net.safetensors", "--target-size", "small"], "no ratio"),
    (["absent.safetensors"], "absent"), (["net.safetensors", "--max-drop", "1"], "--data"),
    (["lenet5", "--data", "digits"], "--weights")])
def test_bad_input_is_one_sentence(fewbits, tmp_path: Path, arguments: list[str], told: str) -> None:
    failed = fewbits("compress", *arguments, "--out", tmp_path / "a.fewbits")
    assert failed.code == 2
    assert told in failed.err
    assert failed.err.count("\n") == 1


@pytest.fixture
def tiny(fewbits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The arguments that compress a small network on its data, in a folder of its own."""
    (tmp_path / "tinynets.py").write_text("""
from torch import nn

def tiny():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 40), nn.ReLU(), nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 2))
""")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((480, 1, 4, 4)).astype(np.float32)
    y = (x.reshape(480, -1).sum(1) > 0).astype(np.int64)
    np.savez(tmp_path / "data.npz", train_x=x[:400], train_y=y[:400], test_x=x[400:], test_y=y[400:])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    torch.save(resolve("tinynets:tiny").build().state_dict(), "tiny.pt")
    return lambda epochs, out, *goal: (
        "compress", "tinynets:tiny", "--weights", "tiny.pt", "--data", "npz:data.npz", "--epochs", str(epochs),
        "--max-drop", "100", *goal, "--out", out)


def test_with_data_interrupted_and_resumed(fewbits, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = fewbits(*tiny(4, "whole.fewbits", "--target-size", "8x"))
    assert done.code == 0, done.err
    file = WeightsFile("whole.fewbits")
    assert file.decoded_bytes() / file.size >= 8

    calls = 0
    from fewbits.workflow import compress
    keep = compress._keep

    def interrupted(*arguments):
        nonlocal calls
        keep(*arguments)
        calls += 1
        if calls in (3, 6):
            raise KeyboardInterrupt

    monkeypatch.setattr(compress, "_keep", interrupted)
    assert fewbits(*tiny(4, "again.fewbits", "--target-size", "8x")).code == 130
    assert fewbits(*tiny(4, "again.fewbits", "--target-size", "8x")).code == 130
    assert not Path("again.fewbits").exists()
    resumed = fewbits(*tiny(4, "again.fewbits", "--target-size", "8x"))
    assert resumed.code == 0
    assert "going on" in resumed.out
    assert Path("again.fewbits").read_bytes() == Path("whole.fewbits").read_bytes()
    assert not list(tmp_path.glob("*.progress")) + list(tmp_path.glob("*.trial"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a signal of POSIX")
def test_with_data_killed_by_the_system_and_resumed(fewbits, tiny, tmp_path: Path) -> None:
    kept = tmp_path / "again.fewbits.progress"
    with subprocess.Popen([sys.executable, "-m", "fewbits", *tiny(12, "again.fewbits", "--target-size", "5x")],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not kept.exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(0.02)  # into some later epoch
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not Path("again.fewbits").exists()
    resumed = fewbits(*tiny(12, "again.fewbits", "--target-size", "5x"))
    assert resumed.code == 0, resumed.err
    assert "going on" in resumed.out
    assert not list(tmp_path.glob("again.fewbits.*"))
    assert fewbits(*tiny(12, "whole.fewbits", "--target-size", "5x")).code == 0
    assert Path("again.fewbits").read_bytes() == Path("whole.fewbits").read_bytes()


def test_with_data_the_goal_is_a_size_or_an_accuracy(fewbits, tiny) -> None:
    done = fewbits(*tiny(1, "small.fewbits"))  # any loss is allowed: pruned as far as it goes
    assert done.code == 0, done.err
    smallest = Path("small.fewbits").read_bytes()
    assert "attempt 8" in done.out
    assert f"{WeightsFile('small.fewbits').decoded_bytes() / len(smallest):.1f}x smaller" in done.out
    failed = fewbits(*tiny(1, "small.fewbits", "--target-size", "500x"))
    assert failed.code == 2
    assert "did not meet the goal" in failed.err
    assert failed.err.count("\n") == 1
    lossless = fewbits(*tiny(1, "small.fewbits", "--max-drop", "-200"))
    assert lossless.code == 2
    assert Path("small.fewbits").read_bytes() == smallest


def test_a_compressed_file_is_quantized_as_any_weights(fewbits, small: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small)
    monkeypatch.syspath_prepend(str(small))
    made = fewbits("compress", "small.pt", "--bits", 2, "--out", tmp_path / "small.fewbits")
    assert made.code == 0, made.err
    done = fewbits("quantize", "mynets:small", "--weights", tmp_path / "small.fewbits", "--data", "npz:data.npz",
                   "--mean", 0.5, "--std", 0.25, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "0 differ" in done.out
    failed = fewbits("quantize", "mynets:other", "--weights", tmp_path / "small.fewbits", "--data", "npz:data.npz",
                     "--mean", 0.5, "--std", 0.25, "--out", tmp_path / "out")
    assert failed.code == 2
    assert "another architecture" in failed.err

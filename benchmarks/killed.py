"""Work that is killed at random moments, and begun again: `python -m benchmarks.killed --kills 20`.

Each verb is run once in peace; then again and again into one folder, each run killed (SIGKILL) after a random part of
the time the first took, until one comes to its end. What it wrote must be the same, byte for byte, and nothing
half-written may be left. Then a full disk (a small tmpfs, where this may mount one), a folder that may not be written,
Ctrl-C, and two runs at once into one folder.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

_NET = ("digits_net", "--weights", "{data}/net.fewbits", "--data", "digits")
VERBS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "quantize": (
        ("quantize", *_NET, "--recipe", "w8a8", "--cache", "{out}/ranges.json", "--out", "{out}/net"),
        ("net/model.fewbits", "net/model.onnx"),
    ),
    "calibrate": (("calibrate", *_NET, "--cache", "{out}/ranges.json"), ("ranges.json",)),
    "adaround": (
        ("quantize", *_NET, "--recipe", "w4a8", "--repair", "adaround", "--out", "{out}/net"),
        ("net/model.fewbits", "net/model.onnx"),
    ),
    "reconstruct": (
        ("quantize", *_NET, "--recipe", "w4a8", "--repair", "block-reconstruction", "--out", "{out}/net"),
        ("net/model.fewbits", "net/model.onnx"),
    ),
    "search": (
        ("search", *_NET, "--min-sqnr", "20", "--minimize", "bits", "--ranges", "minmax", "--samples", "32", "--out",
         "{out}/search"),
        ("search/plan.yaml", "search/evaluations.jsonl", "search/front.json"),
    ),
    "train": (
        ("train", *_NET, "--recipe", "lsq-w4a4", "--epochs", "6", "--checkpoint", "{out}/train.ckpt", "--out",
         "{out}/net"),
        ("net/model.fewbits",),
    ),
    "compress": (
        ("compress", *_NET, "--target-size", "6x", "--epochs", "6", "--out", "{out}/small.fewbits"),
        ("small.fewbits",),
    ),
    "reproduce": (
        ("reproduce", "twn-lenet-twn", "--data", "mnist:{data}/mnist", "--work", "{out}/work", "--records",
         "{out}/records", "--record"),
        ("records/twn-lenet-twn.json",),
    ),
}
"""What is typed, and which files must be the same. (Reports name times.)"""


def main(
    kills: Annotated[int, typer.Option(help="Of each verb")] = 20,
    verb: Annotated[str | None, typer.Option(help="Only this one")] = None,
    seed: Annotated[int, typer.Option(help="Of the moments")] = 0,
) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        data.mkdir()
        _network(data)
        for name, (words, files) in VERBS.items():
            if verb in (None, name):
                _killed(name, words, files, data, Path(place), kills, chance)
        if verb is None:
            _stopped(data, Path(place))


def _command(words: Sequence[str], data: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "fewbits", *(word.format(data=data, out=out) for word in words)]


def _network(data: Path) -> None:
    """A trained network, and another folder of data."""
    from fewbits.artifact.weights import save_weights
    from fewbits.data.sets import digits
    from fewbits.tasks.registry import TASKS
    from fewbits.tasks.training import initialised, train

    net = initialised(TASKS["digits_net"].build, 0)
    train(net, digits().train, epochs=3, normalize=digits().normalize, batch_size=64, seed=0)
    save_weights(net.state_dict(), data / "net.fewbits")
    _small_mnist(data / "mnist")


def _small_mnist(folder: Path) -> None:
    """Files as MNIST has them, of 600 and 200 images, each a blot whose place tells its label."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train", 600), ("t10k", 200)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 + 4 * (label // 4):10 + 4 * (label // 4), 4 + 5 * (label % 4):10 + 5 * (label % 4)] = 250
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = b"\0\0\x08" + bytes([array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())


def _killed(
    name: str, words: Sequence[str], files: Sequence[str], data: Path, place: Path, kills: int, chance: random.Random
) -> None:
    whole, again = place / f"{name}-whole", place / f"{name}-killed"
    whole.mkdir()
    begun = time.monotonic()
    subprocess.run(_command(words, data, whole), check=True, capture_output=True)
    took = time.monotonic() - begun
    done = finished = differing = left = 0
    while done < kills:
        shutil.rmtree(again, ignore_errors=True)
        again.mkdir()
        while True:
            process = subprocess.Popen(_command(words, data, again), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.2, 1.1) * took if done < kills else None)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                continue
            assert process.stderr is not None
            told = process.stderr.read().decode()
            assert process.returncode == 0, f"{name} does not go on: {told[-500:]}"
            break
        finished += 1
        differing += sum(_content(whole / file) != _content(again / file) for file in files)
        left += len(list(again.rglob("*.part")))
    print(
        f"{name}: {took:.1f} s in peace; {done} kills, {finished} runs to their end, {differing} files differ, "
        f"{left} parts left",
        flush=True,
    )


def _content(path: Path) -> object:
    """What must be the same of a file: all of it, but for the seconds in the record of a reproduction."""
    if path.parent.name != "records":
        return path.read_bytes()
    return [{name: value for name, value in each.items() if "seconds" not in name}
            for each in json.loads(path.read_bytes())]


def _stopped(data: Path, place: Path) -> None:
    words = VERBS["quantize"][0]
    full = place / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(full)], capture_output=True)
    if mounted.returncode == 0:
        try:
            (full / "net").mkdir()
            (full / "net/model.fewbits").write_bytes(b"an older file")
            _told("a full disk", _command(words, data, full))
            assert (full / "net/model.fewbits").read_bytes() == b"an older file", "the older file is gone"
            assert not list(full.rglob("*.part")), "a part is left"
        finally:
            subprocess.run(["umount", str(full)], check=True)
    else:
        print("a full disk: not tried, this may not mount a tmpfs")
    closed = place / "closed"
    closed.mkdir(mode=0o555)
    if os.geteuid() == 0:
        os.chmod(place, 0o755)
        print("a folder that may not be written: as user 65534")
        _told("a folder that may not be written", _command(words, data, closed), user=65534)
    else:
        _told("a folder that may not be written", _command(words, data, closed))
    stopped = place / "stopped"
    stopped.mkdir()
    process = subprocess.Popen(
        _command(words, data, stopped), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert "Traceback" not in told, told
    print(f"Ctrl-C: exit code {process.returncode}, {told.strip()!r}")
    both = place / "both"
    both.mkdir()
    processes = [
        subprocess.Popen(_command(words, data, both), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert all("Traceback" not in told for told, _ in ends), ends
    alone = (place / "quantize-whole/net/model.fewbits").read_bytes()
    same = (both / "net/model.fewbits").read_bytes() == alone
    print(f"two runs at once: exit codes {[code for _, code in ends]}, the file is {'the same' if same else 'another'}")


def _told(what: str, command: list[str], user: int | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, user=user)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    print(f"{what}: exit code 2, {done.stderr.strip()!r}")


if __name__ == "__main__":
    typer.run(main)

"""Every verb that writes, where it cannot: a disk that is full, a folder that may not be written, Ctrl-C as a file
takes its name. One sentence, its exit code, the older file whole, nothing half-written; leftovers go with the next.
"""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from fewbits import files
from fewbits.cli import quantize
from fewbits.cli.main import app

NETWORK = ("mynets.py:small", "--weights", "small.pt", "--data", "npz:data.npz", "--mean", "0.5", "--std", "0.25")
OLDER = b"an older file"
WRITING = {
    "quantize": (("quantize", *NETWORK, "--out", "{out}"), "model.fewbits"),
    "cache": (("quantize", *NETWORK, "--cache", "{out}/ranges.json", "--out", "{elsewhere}"), "older.json"),
    "demo": (("demo", "--out", "{out}"), "model.fewbits"),
    "export": (("export", "{saved}/model.fewbits", "--out", "{out}/a.onnx"), "a.onnx"),
    "calibrate": (("calibrate", *NETWORK, "--cache", "{out}/ranges.json"), "older.json"),
    "train": (("train", *NETWORK, "--recipe", "qat-w8a8", "--epochs", "1", "--out", "{out}"), "model.fewbits"),
    "checkpoint": (("train", *NETWORK, "--recipe", "qat-w8a8", "--epochs", "1", "--out", "{elsewhere}",
                    "--checkpoint", "{out}/new.ckpt"), "older.ckpt"),
    "search": (("search", *NETWORK, "--min-sqnr", "20", "--minimize", "bits", "--out", "{out}"), "plan.yaml"),
    "compress": (("compress", "small.pt", "--bits", "4", "--out", "{out}/a.fewbits"), "a.fewbits"),
    "decompress": (("decompress", "{held}", "--out", "{out}/a.safetensors"), "a.safetensors"),
    "picture": (("sensitivity", *NETWORK, "--images", "32", "--plot", "{out}/a.svg"), "a.svg"),
}
"""What is typed, and an older file: the one that is written, or where that would be read, another beside it."""


@pytest.fixture
def typed(small, saved, monkeypatch, tmp_path):
    """The words of a verb that writes into `out`."""
    monkeypatch.chdir(small)
    monkeypatch.setattr(quantize, "_DEMO_EPOCHS", 1)
    (tmp_path / "elsewhere").mkdir()

    def words(verb: str, out: Path) -> list[str]:
        held = tmp_path / "held.fewbits"
        if verb == "decompress":
            app(["compress", "small.pt", "--bits", "4", "--out", str(held)], standalone_mode=False)
        return [part.format(out=out, saved=saved, held=held, elsewhere=tmp_path / "elsewhere")
                for part in WRITING[verb][0]]

    return words


@pytest.fixture
def full(tmp_path):
    """A folder on a disk of its own that takes no byte more, once it is filled."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("this may not mount a disk of its own")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> None:
    with contextlib.suppress(OSError), open(place / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


@pytest.fixture
def by_nobody(tmp_path, small, saved):
    """Calls a function as a user whom the folders of these tests let in."""
    if os.geteuid():
        pytest.skip("only root may become another user")
    top = Path(tempfile.gettempdir()).resolve()
    opened = {path for place in (small, saved, tmp_path) for path in (place, *place.parents) if top in path.parents}

    def run(function, *arguments):
        for path in opened:  # and left so: other workers stand in the upper ones, too
            path.chmod(0o755)
        (tmp_path / "elsewhere").chmod(0o777)
        os.seteuid(65534)
        try:
            return function(*arguments)
        finally:
            os.seteuid(0)

    return run


def check(shown, out: Path, verb: str, code: int) -> None:
    assert shown.code == code, shown.err
    told = [line for line in shown.err.splitlines() if not line.startswith("fewbits: warning: ")]
    assert len(told) == 1 and told[0].startswith("fewbits: ") and "Traceback" not in shown.err, shown.err
    assert (out / WRITING[verb][1]).read_bytes() == OLDER
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("verb", WRITING)
def test_a_full_disk(verb, typed, full, fewbits):
    (full / WRITING[verb][1]).write_bytes(OLDER)
    words = typed(verb, full)
    fill(full)
    shown = fewbits(*words)
    check(shown, full, verb, 2)
    assert "No space left on device" in shown.err


@pytest.mark.parametrize("verb", WRITING)
def test_a_folder_that_may_not_be_written(verb, typed, by_nobody, fewbits, tmp_path):
    out = tmp_path / "closed"
    out.mkdir()
    (out / WRITING[verb][1]).write_bytes(OLDER)
    words = typed(verb, out)
    out.chmod(0o555)
    shown = by_nobody(fewbits, *words)
    check(shown, out, verb, 2)
    assert "Permission denied" in shown.err


@pytest.mark.parametrize("verb", WRITING)
def test_ctrl_c_as_the_file_takes_its_name(verb, typed, fewbits, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / WRITING[verb][1]).write_bytes(OLDER)
    words, real = typed(verb, out), os.replace

    def interrupted(source, target):
        if Path(target).parent == out:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(files.os, "replace", interrupted)
    shown = fewbits(*words)
    check(shown, out, verb, 130)
    assert "interrupted; " in shown.err


@pytest.mark.parametrize("verb", [verb for verb in WRITING if not WRITING[verb][1].startswith("older")])
def test_leftovers_go_with_the_next_write(verb, typed, fewbits, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    name = WRITING[verb][1]
    for part in (f".{name}.0123abcd.part", f".{name}.ffffffff.part", f".other-{name}.0123abcd.part"):
        (out / part).write_bytes(b"half")
    shown = fewbits(*typed(verb, out))
    assert shown.code == 0, shown.err
    assert [path.name for path in out.rglob("*.part")] == [f".other-{name}.0123abcd.part"]
    assert (out / name).stat().st_size > len(OLDER)

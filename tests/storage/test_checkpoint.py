"""Checkpoints: what was kept comes back, of the very job only, and nothing that was changed is taken."""

import random

import numpy as np
import pytest
import torch

from fewbits.errors import FileError
from fewbits.storage import container
from fewbits.storage.checkpoint import Job, read_checkpoint, write_checkpoint

JOB = Job("training", {"recipe": "w4a4", "start weights": "ab12"})
STATE = {"step": 3, "losses": [0.5, 0.25], "net": {"a.b": torch.arange(6.0).reshape(2, 3)}, "none": None,
         "optimizer": {"state": {0: {"step": torch.tensor(3.0), "m": torch.ones(2, dtype=torch.bfloat16)}},
                       "groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "on": True}]},
         "mask": torch.tensor([True, False]), "empty": torch.zeros(0, 3), "bytes": torch.arange(5, dtype=torch.uint8)}


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture
def path(tmp_path):
    write_checkpoint(tmp_path / "a", JOB, STATE)
    return tmp_path / "a"


def test_what_was_kept_comes_back_and_gives_the_same_bytes(path):
    state = read_checkpoint(path, JOB)
    assert same(STATE, state)
    state["net"]["a.b"].add_(1)  # memory of its own, which may be written to
    before = path.read_bytes()
    write_checkpoint(path, JOB, read_checkpoint(path, JOB))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("job", "words"), [
    (Job("training", {**JOB.facts, "recipe": "w2a2"}), "of another job, with another recipe"),
    (Job("training", {**JOB.facts, "start weights": "ab13"}), "with another start weights"),
    (Job("training", {"recipe": "w4a4"}), "with another start weights"),
    (Job("training", {**JOB.facts, "data": "1"}), "with another data"),
    (Job("rounding", JOB.facts), "of another kind of work, 'training', and this is 'rounding'"),
])
def test_another_job_is_refused_by_name(path, job, words):
    with pytest.raises(FileError, match=words):
        read_checkpoint(path, job)


def test_every_changed_bit_is_refused(path):
    good, chance = path.read_bytes(), random.Random(0)
    for at in (*range(0, 64, 3), *(chance.randrange(len(good)) for _ in range(200))):
        damaged = bytearray(good)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(FileError, match="remove it to begin anew"):
            read_checkpoint(path, JOB)


@pytest.mark.parametrize("document", [
    b"[]", b"{}", b'{"version":2,"kind":"training","facts":{},"state":null}', b"[" * 100000,
    b'{"version":1,"kind":"training","facts":[],"state":null}', b"\xff",
    *(b'{"version":1,"kind":"training","facts":{"recipe":"w4a4","start weights":"ab12"},"state":' + state + b"}"
      for state in (b'{"tensor":["t","float64"]}', b'{"tensor":["x","float32"]}', b'{"tensor":["t","load"]}',
                    b'{"tensor":["t","bfloat16"]}', b'{"tensor":[1,2]}', b'{"dict":[[[],1]]}',
                    b'{"dict":[[1,1],[1,2]]}', b'{"dict":3}', b'{"a":1}', b"null", b"[" * 60 + b"]" * 60,
                    b'[{"tensor":["t","float32"]},{"tensor":["t","float32"]}]'))])
def test_forged_states_with_right_hashes_are_refused(path, document):
    path.write_bytes(container.build({"t": np.zeros(3, np.float32),
                                      "fewbits.checkpoint": np.frombuffer(document, np.uint8)}, "forged"))
    with pytest.raises(FileError, match="remove it to begin anew"):
        read_checkpoint(path, JOB)


def test_foreign_files_and_what_cannot_be_kept(path):
    for data in (b"", b"PK\x03\x04", b"\x80\x02", b"\x08\0\0\0\0\0\0\0{}      "):
        path.write_bytes(data)
        with pytest.raises(FileError, match="remove it to begin anew"):
            read_checkpoint(path, JOB)
    for state in (object(), {1.5: 2}, torch.zeros(2, dtype=torch.complex64), float("nan")):
        with pytest.raises(FileError, match="was not written"):
            write_checkpoint(path, JOB, state)
    assert path.read_bytes() == b"\x08\0\0\0\0\0\0\0{}      "

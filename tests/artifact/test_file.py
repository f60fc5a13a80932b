"""Saving and loading whole programs: what comes back, and which bytes."""

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from artifact_programs import every_node, forged, linear, one_bit
from safetensors.numpy import load_file
from torch import nn

import fewbits as fb
from fewbits.artifact.file import from_bytes, read, sizes, to_bytes
from fewbits.artifact.save import save_verified
from fewbits.artifact.verify import verify
from fewbits.capture.capture import capture
from fewbits.data.normalize import CAFFE_IMAGENET, MNIST
from fewbits.data.preparation import Preparation
from fewbits.engines.torch import executor
from fewbits.errors import FileError, VerificationError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program import reference
from fewbits.program.examples import as_program
from fewbits.program.ops import RECORDS
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.storage import container


class Small(nn.Module):
    """Convolutions with batch norm, a residual addition, pooling, a split, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Conv2d(6, 6, 3, padding=1, groups=2, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.first(x)
        y = self.pool(torch.relu(self.second(y) + y))
        left, right = y.chunk(2, 1)
        y = torch.cat([right, left], 1).mean((2, 3))
        return {"logits": self.head(y), "features": y}


def lowered(recipe: str, seed: int = 0) -> Program:
    torch.manual_seed(seed)
    x = torch.randn(4, 2, 8, 8)
    model = fold(capture(Small().eval(), x))
    return lower(calibrate(model, plan(model, recipe), [x]), "onnxruntime")


def assert_same(one: Program, other: Program) -> None:
    """Equal in everything that can be stored, and in what they compute."""
    assert to_bytes(one) == to_bytes(other)
    assert (one.profile, one.inputs, one.structure, dict(one.values)) == (
        other.profile,
        other.inputs,
        other.structure,
        dict(other.values),
    )
    random, inputs = np.random.default_rng(1), {}
    for name in one.inputs:
        shape = tuple(2 if size is None else size for size in one.values[name].shape)
        rows = one.values[name].dtype == "int64"
        inputs[name] = random.integers(0, 5, shape) if rows else random.normal(size=shape).astype(np.float32)
    names = [node.name for node in one.nodes]
    mine, theirs = (reference.run(program, inputs, names) for program in (one, other))
    for name in names:
        assert mine[name].dtype == theirs[name].dtype
        np.testing.assert_array_equal(mine[name], theirs[name])


@pytest.mark.parametrize("kind", RECORDS)
def test_every_operator_round_trips(kind: type) -> None:
    for example in RECORDS[kind].examples():
        program, inputs = as_program(example)
        again = from_bytes(to_bytes(program), "a").program
        names = [node.name for node in program.nodes]
        mine, theirs = (reference.run(each, inputs, names) for each in (program, again))
        for name in names:
            assert mine[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(mine[name], theirs[name])


def test_many_nodes_round_trip(tmp_path: Path) -> None:
    program = every_node()
    save_verified(program, tmp_path / "a.fewbits")
    assert_same(program, read(tmp_path / "a.fewbits").program)
    assert repr(read(tmp_path / "a.fewbits").program.structure) == repr(program.structure)


@pytest.mark.parametrize("recipe", ["w8a8", "w4a8", "w8a8-per-tensor"])
def test_lowered_networks_round_trip_and_verify(recipe: str, tmp_path: Path) -> None:
    program = lowered(recipe)
    save_verified(program, tmp_path / "a.fewbits")
    assert_same(program, read(str(tmp_path / "a.fewbits")).program)
    for replay in verify(tmp_path / "a.fewbits"):
        assert (replay.differing, replay.first) == (0, None)
        assert replay.compared > 1000


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    save_verified(lowered("w8a8"), tmp_path / "a.fewbits")
    save_verified(lowered("w8a8"), tmp_path / "b.fewbits")
    save_verified(read(tmp_path / "a.fewbits").program, tmp_path / "c.fewbits")
    first = (tmp_path / "a.fewbits").read_bytes()
    assert first == (tmp_path / "b.fewbits").read_bytes() == (tmp_path / "c.fewbits").read_bytes()
    save_verified(lowered("w8a8", seed=1), tmp_path / "b.fewbits")
    assert first != (tmp_path / "b.fewbits").read_bytes()


def test_other_tools_read_its_tensors(tmp_path: Path) -> None:
    save_verified(every_node(), tmp_path / "a.fewbits")
    tensors = load_file(tmp_path / "a.fewbits")
    ours = container.parse((tmp_path / "a.fewbits").read_bytes()).tensors
    assert tensors.keys() == {*ours, "fewbits.hashes"}
    for name, array in ours.items():
        np.testing.assert_array_equal(tensors[name], array)
    assert json.loads(tensors["fewbits.program"].tobytes())["inputs"] == ["x", "z", "ids"]
    assert {
        "a.conv.weight",
        "a.conv.weight.scale",
        "a.conv.bias",
        "shift.data",
        "fewbits.output.fc",
    } <= tensors.keys()


def test_an_artifact_prints_on_one_line(tmp_path: Path) -> None:
    save_verified(every_node(), tmp_path / "a.fewbits")
    text = str(read(tmp_path / "a.fewbits"))
    assert "\n" not in text
    assert "43 nodes for onnxruntime" in text


@pytest.mark.parametrize("program", [every_node(), linear(), one_bit()])
def test_sizes_add_up_to_the_file(program: Program, tmp_path: Path) -> None:
    save_verified(program, tmp_path / "a.fewbits")
    items = sizes(tmp_path / "a.fewbits")
    assert sum(item.bytes for item in items) == (tmp_path / "a.fewbits").stat().st_size
    assert len({(item.layer, item.part) for item in items}) == len(items)
    assert all("\n" not in str(item) for item in items)


def test_sizes_name_layers_and_parts(tmp_path: Path) -> None:
    save_verified(every_node(), tmp_path / "a.fewbits")
    items = {(item.layer, item.part): item.bytes for item in sizes(tmp_path / "a.fewbits")}
    assert items["a.conv", "codes"] == 36
    assert items["a.conv", "scales"] == items["a.conv", "biases"] == 16
    assert items["shift", "constants"] == 4
    assert {"test vectors", "hashes", "program JSON", "safetensors header"} <= {part for _, part in items}


def test_large_outputs_are_hashed_and_not_stored(tmp_path: Path) -> None:
    program = linear("int8", outputs=1500)
    save_verified(program, tmp_path / "a.fewbits")
    assert not read(tmp_path / "a.fewbits").vectors.outputs
    assert [replay.differing for replay in verify(tmp_path / "a.fewbits")] == [0, 0, 0, 0]


def test_what_beyond_weights_is_little(tmp_path: Path) -> None:
    save_verified(lowered("w8a8"), tmp_path / "a.fewbits")
    beyond = [
        item.bytes for item in sizes(tmp_path / "a.fewbits") if item.part not in ("codes", "scales", "biases")
    ]
    assert sum(beyond) < 6000


# ------------------------------------------------------------------------------ writing


def refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.fewbits"
    save_verified(linear(), path)
    before = path.read_bytes()
    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(FileError, match=r"a\.fewbits was not written \(No space left on device\)"):
        save_verified(every_node(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.fewbits"]


def test_a_limit_of_the_system_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.fewbits"
    save_verified(linear(), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(FileError, match="File too large"):
            save_verified(every_node(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.fewbits"]


def test_a_program_that_would_not_come_back_is_not_written(tmp_path: Path) -> None:
    program = linear()
    object.__setattr__(program.nodes[1], "bias", np.zeros(3))  # float64, which no lowering makes
    with pytest.raises(FileError, match=r"was not written, because it cannot hold 'fc\.bias'"):
        save_verified(program, tmp_path / "a.fewbits")
    assert os.listdir(tmp_path) == []


# ----------------------------------------------------------------------------- verifying


def test_a_changed_weight_is_found_at_its_node(tmp_path: Path) -> None:
    def flip(_: object, tensors: dict[str, np.ndarray]) -> None:
        tensors["a.conv.weight"] = tensors["a.conv.weight"] ^ np.uint8(16)

    (tmp_path / "a.fewbits").write_bytes(forged(every_node(), flip))
    for replay in verify(tmp_path / "a.fewbits"):
        assert replay.first == "a.conv"
        assert 0 < replay.differing < replay.compared
        assert "first in 'a.conv'" in str(replay)


def test_a_changed_expectation_is_found(tmp_path: Path) -> None:
    def flip(_: object, tensors: dict[str, np.ndarray]) -> None:
        changed = tensors["fewbits.output.fc"].copy()
        changed[0] ^= 1
        tensors["fewbits.output.fc"] = changed

    (tmp_path / "a.fewbits").write_bytes(forged(every_node(), flip))
    assert [(r.differing, r.first) for r in verify(read(tmp_path / "a.fewbits"))] == [
        (1, "fc"),
        (1, "fc"),
        (1, "fc"),
        (1, "fc"),
    ]


def test_every_node_verifies_on_each_engine() -> None:
    artifact = from_bytes(to_bytes(every_node()), "a")
    assert [(r.engine, r.differing, r.first) for r in verify(artifact)] == [
        ("reference", 0, None),
        ("torch", 0, None),
        ("native", 0, None),
        ("onnxruntime", 0, None),
    ]
    assert [r.engine for r in verify(artifact, ["torch"])] == ["torch"]


def test_what_a_network_expects_of_its_data_is_kept(tmp_path: Path) -> None:
    program, file = linear(), tmp_path / "a.fewbits"
    save_verified(program, file)
    assert read(file).preparation == Preparation()
    plain = file.read_bytes()
    for given in (Preparation(CAFFE_IMAGENET), Preparation(label_offset=1), Preparation(MNIST, 1)):
        save_verified(program, file, given)
        assert read(file).preparation == given
        again = fb.load(file)
        again.save(tmp_path / "b.fewbits")
        assert (tmp_path / "b.fewbits").read_bytes() == file.read_bytes() != plain
        assert sum(item.bytes for item in sizes(file) if item.part == "preparation JSON") > 0
        assert all(not replay.differing for replay in verify(file))


@pytest.mark.parametrize(("document", "words"), [
    ('{"normalize":{"mean":[0.0],"std":[0.0]}}', "std and divide must be above zero"),
    ('{"normalize":{"mean":[0.0]}}', "does not say 'std'"),
    ('{"label_offset":"1"}', "where that cannot be"),
    ('{"colour":true}', "says 'colour'"),
    ("[]", "where that cannot be"),
    ("[" * 100_000, "preparation"),
    ("x", "preparation"),
])
def test_a_forged_preparation_is_refused(tmp_path: Path, document: str, words: str) -> None:
    held = container.parse(to_bytes(linear(), Preparation(MNIST, 1)))
    tensors = {name: array for name, array in held.tensors.items() if name != "fewbits.hashes"}
    tensors["fewbits.preparation"] = np.frombuffer(document.encode(), np.uint8)
    (tmp_path / "a.fewbits").write_bytes(container.build(tensors, held.writer))
    with pytest.raises(FileError, match=rf"a.fewbits .*{words}"):
        read(tmp_path / "a.fewbits")


def test_what_the_torch_executor_computes_otherwise_is_not_saved(tmp_path: Path, monkeypatch) -> None:
    file, right = tmp_path / "a.fewbits", executor.walk_once

    def wrong(program, inputs):
        return ((name, codes + (name == "a.conv")) for name, codes in right(program, inputs))

    save_verified(every_node(), file)
    older = file.read_bytes()
    monkeypatch.setattr("fewbits.artifact.verify.walk_once", wrong)
    with pytest.raises(VerificationError, match=r"a.fewbits was not written: the torch executor does not compute 'a"):
        fb.QuantizedModel(every_node()).save(file)
    assert file.read_bytes() == older


class _Windows(nn.Module):
    """Windows folded into the batch, some of what is done to them in float."""

    def __init__(self):
        super().__init__()
        self.mix, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x):
        windows = self.mix(x).reshape(-1, 3, 6)
        return self.head(windows + self.norm(windows)).reshape(x.shape)


@pytest.mark.parametrize("recipe", [
    {"rules": [{"op": "layer_norm", "keep_float": True}]}, {"rules": [{"module": "head", "keep_float": True}]},
    "dynamic-w8a8"], ids=["norm", "head", "dynamic"])
def test_islands_in_windows_that_are_folded_into_the_batch(recipe, tmp_path):
    """The test vectors of a half have its inputs in sizes that go together: a batch of 2 here, its windows there."""
    if not isinstance(recipe, str):
        recipe = Recipe.model_validate({"version": 1, "weights": {"format": "int8", "block": "channel"},
                                        "activations": {"format": "uint8"}} | recipe)
    torch.manual_seed(0)
    x = torch.randn(2, 12, 6)
    model = fold(capture(_Windows().eval(), x))
    program = lower(calibrate(model, plan(model, recipe), [x]))
    assert program.has_islands
    save_verified(program, tmp_path / "windows.fewbits")
    assert {replay.differing for replay in verify(tmp_path / "windows.fewbits")} == {0}

"""AIMET's encodings files: those of AIMET 2.42 itself, and round trips that keep every code.

aimet/*.encodings were written by AIMET 2.42 (torch 2.13) from the network of `net()`, with its default 8 bits:
`sim.export` wrote m.encodings and m_torch.encodings, `sim.onnx.export` the three named after their schema.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import fewbits as fb
from fewbits.cli.main import app
from fewbits.encodings.aimet import read_encodings
from fewbits.errors import EncodingError, FileError

WRITTEN = Path(__file__).parent / "aimet"
NAMES = {"x": "input", "y": "3"}


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 4)).eval()
        return layers, torch.randn(4, 2, 8, 8)


def simulation(**weights):
    layers, x = net()
    recipe = fb.recipe("w8a8").model_copy(update={"outputs": "quantized"})
    if weights:
        recipe = recipe.model_copy(update={"weights": recipe.weights.model_copy(update=weights)})
    model = fb.fold(fb.capture(layers, x))
    return fb.calibrate(model, fb.plan(model, recipe), [x]), x


@pytest.mark.parametrize("file", ["n0.6.1", "n1.0.0", "n2.0.0", "m_torch"])
def test_files_of_aimet_load(file):
    """Against the figures of the file, read anew by hand."""
    sim, _ = simulation()
    loaded = fb.load_encodings(sim, WRITTEN / f"{file}.encodings", names=NAMES)
    raw = json.loads((WRITTEN / "n1.0.0.encodings").read_text())
    for entry in (*raw["activation_encodings"], *raw["param_encodings"]):
        name = {"x": "input", "y": "3", "/1/Relu_output_0": "1"}.get(entry["name"], entry["name"])
        if name.startswith("/2"):
            continue  # flatten passes codes on
        row = loaded.encodings().named(name)
        np.testing.assert_array_equal(np.float32(row.delta), np.float32(entry["scale"]), err_msg=name)
        assert list(row.offset) == entry["offset"], name
        assert row.symmetric == entry["is_sym"]


def test_aimets_minimum_and_maximum_are_ours():
    sim, _ = simulation()
    loaded = fb.load_encodings(sim, WRITTEN / "n0.6.1.encodings", names=NAMES)
    raw = json.loads((WRITTEN / "n0.6.1.encodings").read_text())
    for name, ours in (("x", "input"), ("/1/Relu_output_0", "1"), ("y", "3")):
        row, entry = loaded.encodings().named(ours), raw["activation_encodings"][name][0]
        assert row.minimum[0] == pytest.approx(entry["min"], abs=1e-6)
        assert row.maximum[0] == pytest.approx(entry["max"], abs=1e-6)


@pytest.mark.parametrize(("version", "layout"), [("0.6.1", "tensors"), ("0.6.1", "modules"), ("1.0.0", "tensors"),
                                                 ("1.0.0", "modules"), ("2.0.0", "tensors")])
@pytest.mark.parametrize("weights", [{}, {"format": "int4"}, {"block": "tensor"}, {"format": "int8-narrow"},
                                     {"symmetric": False}])
def test_a_round_trip_keeps_every_code(tmp_path, version, layout, weights):
    sim, x = simulation(**weights)
    path = tmp_path / "net.encodings"
    fb.save_encodings(sim, path, version, layout=layout)
    other = fb.calibrate(sim.model, sim.plan, [3 * x + 1])
    with torch.no_grad():
        assert not torch.equal(other(x), sim(x))
        loaded = fb.load_encodings(other, path)
        assert torch.equal(loaded(x), sim(x))
    for one, two in zip(sim.quantizers(), loaded.quantizers(), strict=True):
        assert one.encoding == two.encoding
    assert np.array_equal(fb.lower(loaded).codes(x), fb.lower(sim).codes(x))


@pytest.mark.parametrize("layout", ["tensors", "modules"])
def test_a_narrow_format_is_written_as_the_whole_type(tmp_path, layout):
    """As AIMET's readers have it: their signed integers go from −128, and `min` and `max` give the scale."""
    sim, _ = simulation(format="int8-narrow")
    fb.save_encodings(sim, tmp_path / "net", "0.6.1", layout=layout)
    for row in json.loads((tmp_path / "net").read_text())["param_encodings"]["0.weight"]:
        assert row["offset"] == -128
        assert row["min"] == -128 * row["scale"]
        assert row["max"] == 127 * row["scale"]


@pytest.mark.parametrize("weights", [{}, {"format": "int8-narrow"}])
def test_strict_symmetry_of_aimet_has_no_zero_point(tmp_path, weights):
    """x = scale · (q + offset) from −127: the multiples of the scale."""
    sim, _ = simulation(**weights)
    fb.save_encodings(sim, tmp_path / "net", "1.0.0")
    content = json.loads((tmp_path / "net").read_text())
    content["param_encodings"][0]["offset"] = [-127] * 3
    (tmp_path / "net").write_text(json.dumps(content))
    loaded = fb.load_encodings(sim, tmp_path / "net")
    assert not loaded.quantizer("0.weight").encoding.zero_point.any()


def test_modules_that_have_no_name_are_refused(tmp_path):
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.one(x) + self.two(x)

    x = torch.randn(4, 3)
    model = fb.fold(fb.capture(Adds().eval(), x))
    sim = fb.calibrate(model, fb.plan(model, fb.recipe("w8a8").model_copy(update={"outputs": "quantized"})), [x])
    with pytest.raises(EncodingError, match="'add' comes from no module"):
        fb.save_encodings(sim, tmp_path / "net", "0.6.1", layout="modules")
    assert not (tmp_path / "net").exists()
    fb.save_encodings(sim, tmp_path / "net", "0.6.1")


def test_our_names_may_be_changed_on_the_way(tmp_path):
    sim, x = simulation()
    names = {"input": "pixels", "0.weight": "conv.w"}
    fb.save_encodings(sim, tmp_path / "a", names=names)
    assert {"pixels", "conv.w"} <= set(read_encodings(tmp_path / "a"))
    with pytest.raises(EncodingError, match=r"'pixels' is no.*'conv.w' is no.*'input' is not in the file"):
        fb.load_encodings(sim, tmp_path / "a")
    loaded = fb.load_encodings(sim, tmp_path / "a", names={there: here for here, there in names.items()})
    with torch.no_grad():
        assert torch.equal(loaded(x), sim(x))


def edited(tmp_path, version, change):
    sim, _ = simulation()
    fb.save_encodings(sim, tmp_path / "net", version)
    content = json.loads((tmp_path / "net").read_text())
    change(content)
    (tmp_path / "net").write_text(json.dumps(content))
    return sim, tmp_path / "net"


@pytest.mark.parametrize(("version", "change", "error", "words"), [
    ("1.0.0", lambda c: c.update(colour="red"), FileError, "fields that are not known in the file: 'colour'"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(block_size=4), FileError, "in '0.weight': 'block_size'"),
    ("0.6.1", lambda c: c["param_encodings"]["0.weight"][0].update(x=4), FileError, "not known in '0.weight': 'x'"),
    ("2.0.0", lambda c: c["encodings"][0].update(block_size=4), FileError, "not known in 'input': 'block_size'"),
    ("1.0.0", lambda c: c.update(version="3.1"), FileError, "schema '3.1'"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(bw=4), EncodingError, "has 4 bits, and the plan int8"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(dtype="FLOAT"), FileError, "only integers"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(enc_type="LPBQ"), FileError, "LPBQ"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(offset=[1]), FileError, "as many as offsets"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(scale=[-1.0] * 3), FileError, "scales are positive"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(offset=[0.5] * 3), FileError, "no whole number"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(offset=[-300] * 3), EncodingError, "no code of int8"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(offset=[-100] * 3), EncodingError, "wants it symmetric"),
    ("1.0.0", lambda c: c["param_encodings"].pop(), EncodingError, "'3.weight' is not in the file"),
    ("1.0.0", lambda c: c["param_encodings"].append(3), FileError, "has a whole number for one of its encodings, which "
     "is an object"),
    ("1.0.0", lambda c: c["param_encodings"].append(c["param_encodings"][0]), FileError, "two encodings of '0.weight'"),
    ("2.0.0", lambda c: c["encodings"].append(c["encodings"][0]), FileError, "two encodings of 'input'"),
    ("1.0.0", lambda c: c["param_encodings"][0].pop("bw"), FileError, "has no 'bw' in '0.weight'"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(bw=99), FileError, "99 bits for '0.weight', and 1 to 32 are"),
    ("2.0.0", lambda c: c["encodings"][0].update(output_dtype="uint99"), FileError, "99 bits for 'input'"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(bw=True), FileError, "true or false for 'bw' in '0.weight'"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(scale=["x"] * 3), FileError, "a text for a scale of '0.weight'"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(offset=[None] * 3), FileError, "null for an offset of"),
    ("1.0.0", lambda c: c["param_encodings"][0].update(name=[1]), FileError, "a list for 'name'"),
    ("2.0.0", lambda c: c["encodings"][0].update(y_zero_point={}), FileError, "an object for the zero point of"),
    ("2.0.0", lambda c: c.update(encodings={}), FileError, "has an object for its encodings, which is a list"),
    ("0.6.1", lambda c: c["param_encodings"].update({"0.weight": []}), FileError, "channels of no bits"),
    ("0.6.1", lambda c: c["param_encodings"].update({"0.weight": {"input": 3}}), FileError, "whole number for 'input'"),
    ("0.6.1", lambda c: c.update(param_encodings=[]), FileError, "has a list for its encodings, which is an object"),
    ("0.6.1", lambda c: c.update(version=[]), FileError, r"schema \[\]"),
    ("2.0.0", lambda c: c["encodings"][0].update(output_dtype="float16"), FileError, "only integers"),
])
def test_what_does_not_fit_is_said(tmp_path, version, change, error, words):
    sim, path = edited(tmp_path, version, change)
    with pytest.raises(error, match=words):
        fb.load_encodings(sim, path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"version": "1.0.0"}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_said(tmp_path, text):
    (tmp_path / "x").write_bytes(text)
    with pytest.raises(FileError, match="x "):
        read_encodings(tmp_path / "x")


def test_calibrating_aimets_way():
    sim, x = simulation()
    layers, _ = net()
    model = fb.fold(fb.capture(layers, x))
    seen = []

    def forward_pass(running):
        seen.append(running.mode)
        running(x)

    other = fb.calibrate(model, sim.plan, callback=forward_pass)
    assert seen == ["observe"]
    assert other.mode == "simulate"
    for one, two in zip(sim.quantizers(), other.quantizers(), strict=True):
        assert one.encoding == two.encoding
    other.compute_encodings(lambda running: running(2 * x))
    assert float(other.quantizer("input").scale) == pytest.approx(2 * float(sim.quantizer("input").scale))
    with torch.no_grad():
        assert not torch.equal(other(x), sim(x))


def test_the_table_prints_a_row_a_tensor():
    sim, _ = simulation()
    lines = str(sim.encodings()).splitlines()
    assert lines[0].split() == ["tensor", "kind", "bits", "min", "max", "delta", "offset"]
    assert len(lines) == 1 + len(list(sim.quantizers()))
    row = next(line for line in lines if line.startswith("0.weight")).split()
    assert row[1:4] == ["weight", "8", "symmetric"]
    assert row[-1] == "-128"


def test_the_command_prints_both_kinds_of_files(tmp_path):
    sim, _ = simulation()
    fb.lower(sim).save(tmp_path / "net.fewbits")
    fb.save_encodings(sim, tmp_path / "net.json")
    printed = [CliRunner().invoke(app, ["encodings", str(tmp_path / name)]) for name in ("net.fewbits", "net.json")]
    assert [result.exit_code for result in printed] == [0, 0]
    deltas = [{line.split()[0]: line for line in result.output.splitlines()} for result in printed]
    wanted = sim.encodings().named("0.weight")
    assert f"{min(wanted.delta):.6g}" in deltas[1]["0.weight"]
    printed = CliRunner().invoke(app, ["encodings", str(tmp_path / "net.fewbits"), "--json"]).output
    rows = json.loads(printed)["result"]
    weight = next(row for row in rows if row["kind"] == "weight")
    assert weight["delta"] == list(wanted.delta)
    assert weight["offset"] == list(wanted.offset)

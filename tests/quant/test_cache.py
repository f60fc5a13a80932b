"""Kept ranges: the same simulation again, and nothing for another model or plan; TensorRT's table."""

import json
import os
import random
import struct

import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import CalibrationError, FileError
from fewbits.fold.fold import fold
from fewbits.quant import cache
from fewbits.quant.cache import calibrate_cached, load_ranges, save_ranges
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.tensorrt_table import apply_table, read_table, write_table


def model(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return fold(capture(net, torch.randn(2, 2, 6, 6)))


@pytest.fixture
def batches():
    return [torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def test_kept_and_used_again(tmp_path, batches):
    path, net = tmp_path / "ranges.json", model()
    first = calibrate_cached(net, plan(net, "w4a8"), batches, path)
    again = calibrate_cached(model(), plan(net, "w4a8"), [], path)  # the batches are not needed
    assert again(batches[0]).equal(first(batches[0]))
    for a, b in zip(first.quantizers(), again.quantizers(), strict=True):
        assert a.encoding == b.encoding


def test_refused_for_another_model_or_plan_and_when_damaged(tmp_path, batches):
    path, net = tmp_path / "ranges.json", model()
    save_ranges(calibrate(net, plan(net, "w4a8"), batches), path)
    with pytest.raises(FileError, match="another model"):
        load_ranges(model(1), plan(net, "w4a8"), path)
    with pytest.raises(FileError, match="another plan"):
        load_ranges(net, plan(net, "w8a8"), path)
    content = json.loads(path.read_text())
    for spoiled, words in (({**content, "version": 1}, "has version '1'"),
                           ({**content, "sites": {}}, "changed by hand"), ({"version": 2}, "changed by hand"),
                           ([1], "no calibration cache"),
                           (signed({**content, "sites": {}}), "damaged at tensor"), (signed({"version": 2}), "no cal"),
                           (signed({**content, "sites": []}), "no calibration cache")):
        path.write_text(json.dumps(spoiled))
        with pytest.raises(FileError, match=words):
            load_ranges(net, plan(net, "w4a8"), path)
    for value in (-1, "a", None, [1, 2], [1.0, 2.0], ["1"], [1e308], [float(2**70)] * 4):
        content["sites"]["input"]["scale"] = value
        path.write_text(json.dumps(signed(content)))
        with pytest.raises(FileError, match="damaged at tensor 'input'"):
            load_ranges(net, plan(net, "w4a8"), path)
    for junk in (b"\xff\x00junk", b"[" * 100000, b'{"version": ' + b"9" * 5000 + b"}", b'{"version":2,"version":2}',
                 b""):
        path.write_bytes(junk)
        with pytest.raises(FileError, match="no calibration cache"):
            load_ranges(net, plan(net, "w4a8"), path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileError, match="no regular file"):
        calibrate_cached(net, plan(net, "w4a8"), batches, path)


def signed(content):
    """With a digest that is right again."""
    content = {key: value for key, value in content.items() if key != "digest"}
    return {**content, "digest": cache._digest(content)}


def test_no_flipped_bit_and_no_changed_scale_gives_other_grids(tmp_path, batches):
    path, net = tmp_path / "ranges.json", model()
    right = [q.encoding for q in calibrate_cached(net, plan(net, "w4a8"), batches, path).quantizers()]
    good, chance = path.read_bytes(), random.Random(0)
    for _ in range(150):
        damaged = bytearray(good)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(7)
        path.write_bytes(damaged)
        try:
            found = load_ranges(net, plan(net, "w4a8"), path)
        except FileError:
            continue
        assert [q.encoding for q in found.quantizers()] == right  # a blank became another
    content = json.loads(good)
    content["sites"]["input"]["scale"][0] *= 1000
    path.write_text(json.dumps(content))
    with pytest.raises(FileError, match="changed by hand"):
        load_ranges(net, plan(net, "w4a8"), path)


def test_a_cache_of_other_data_is_refused_where_the_data_are_told(tmp_path, batches):
    path, net = tmp_path / "ranges.json", model()
    calibrate_cached(net, plan(net, "w4a8"), batches, path, data="one")
    calibrate_cached(net, plan(net, "w4a8"), batches, path)
    with pytest.raises(FileError, match="another data set"):
        calibrate_cached(net, plan(net, "w4a8"), batches, path, data="two")


def test_tensorrt_table(tmp_path, batches):
    path, net = tmp_path / "table", model()
    simulation = calibrate(net, plan(net, "w8a8"), batches)
    write_table(simulation, path)
    lines = path.read_text().splitlines()
    assert lines[0].startswith("TRT-")
    scales = read_table(path)
    relu = simulation.quantizer(next(name for name in scales if name != "input"))
    assert scales[relu.site] == pytest.approx(255 * float(relu.encoding.scale) / 127)  # its range starts at 0
    line = next(line for line in lines if line.startswith("input: "))
    assert struct.unpack(">f", bytes.fromhex(line.split()[1]))[0] == pytest.approx(scales["input"])
    changed = apply_table(simulation, scales)
    assert changed.quantizer(relu.site).encoding.scale == pytest.approx(relu.encoding.scale)
    assert 127 * scales["input"] >= max(-batches[0].min(), batches[0].max()) - 0.02
    del scales["input"]
    with pytest.raises(CalibrationError, match="no scale for tensor 'input'"):
        apply_table(simulation, scales)


@pytest.mark.parametrize("text", ["", "input: 3c010a14\n", "TRT-8\ninput 3c\n", "TRT-8\ninput: zz\n",
                                  "TRT-8\na: 7fc00000\n", "TRT-8\na: bf800000\n", "TRT-8\na: 00000000\n"])
def test_what_is_no_table(tmp_path, text):
    path = tmp_path / "table"
    path.write_text(text)
    with pytest.raises(FileError):
        read_table(path)


def test_the_table_is_for_eight_bits_only(tmp_path, batches):
    net = model()
    decided = plan(net, "w8a8")
    simulation = calibrate(net, decided, batches)
    quantizer = simulation.quantizer("input")
    quantizer.spec = type(quantizer.spec)(type(quantizer.spec.format)(4, signed=False), False, quantizer.spec.block)
    quantizer.encoding = quantizer.spec.fit(quantizer.observer)
    with pytest.raises(CalibrationError, match="8-bit"):
        write_table(simulation, tmp_path / "table")

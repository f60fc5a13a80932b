"""Every reader that takes bytes from elsewhere: a good file for it, ways to spoil that, and what reading it is.

What `spoilt` gives with False has wrong checksums where the form has any, and must be refused or be the same as the
good file; with True it is forged with right ones, and must be refused or taken for what it says, within the limits.
"""

import contextlib
import copy
import gzip
import io
import json
import os
import random
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save as safetensors
from torch import nn

from benchmarks.fuzz import jobs, weights
from benchmarks.fuzz.containers import containers
from benchmarks.fuzz.mutate import ODD, change, changed_json, changed_png, damaged, rezipped
from benchmarks.fuzz.programs import (
    exported,
    plausible_program,
    programs,
    run_everywhere,
    spoilt_onnx,
    spoilt_program,
)
from benchmarks.fuzz.reader import Reader, Spoil, small_model, small_simulation, written
from fewbits.artifact import file as artifact
from fewbits.artifact.weights import WeightsFile
from fewbits.capture.capture import capture
from fewbits.data.images import Crop, Images, find_images
from fewbits.data.readers import read_cifar10_binary, read_idx, read_npz
from fewbits.data.sets import load
from fewbits.data.weights import load_weights
from fewbits.encodings.aimet import load_encodings, save_encodings
from fewbits.export.described import description
from fewbits.pt2.pt2 import read_pt2
from fewbits.quant import cache
from fewbits.quant.planner import plan
from fewbits.quant.presets import presets
from fewbits.quant.recipe import recipe
from fewbits.quant.tensorrt_table import read_table, write_table
from fewbits.storage.checkpoint import Job, read_checkpoint, write_checkpoint


def _spoilt_weights(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    if rng.random() < 0.4:
        return next(weights.mutations(data, 1, rng.randrange(2**62))), False
    return next(weights.reforged(data, 1, rng.randrange(2**62))), True


def _weights_file(path: Path) -> Any:
    held = WeightsFile(path, weights.LIMIT)
    held.items()
    held.bounds()
    held.shapes()
    return {
        name: (str(tensor.dtype), tensor.shape, tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in held.state_dict().items()
    }


_JOB = Job("training", {"recipe": "w4a4"})
_STATE = {
    "step": 3,
    "losses": [0.5, 0.25],
    "net": {"w": torch.arange(6.0).reshape(2, 3)},
    "none": None,
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "m": torch.ones(2, dtype=torch.bfloat16)}}},
}


def _plain(value: Any) -> Any:
    """A state, to be compared."""
    if isinstance(value, torch.Tensor):
        return (
            str(value.dtype),
            tuple(value.shape),
            value.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).tolist(),
        )
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------ archives


@lru_cache(maxsize=1)
def _pt2() -> bytes:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Linear(8, 3)
            self.register_buffer("gain", torch.arange(1.0, 4.0))

        def forward(self, x: torch.Tensor) -> Any:
            left, right = torch.relu_(self.norm(self.conv(x))).chunk(2, 1)
            y = nn.functional.max_pool2d(torch.cat([left, right], 1), 2).flatten(1)
            y = self.fc(y) * self.gain + torch.tensor([1.0, 2.0, 3.0])
            return {"out": torch.where(y > 0, y, 0.1 * y), "mean": y.softmax(-1)}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exported = torch.export.export(
            Net().eval(), (torch.rand(2, 1, 4, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    with zipfile.ZipFile(buffer) as archive:  # without the sample inputs, which are never read
        members = {name: archive.read(name) for name in archive.namelist() if "sample_inputs" not in name}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@lru_cache(maxsize=1)
def _pt2_words() -> tuple[Any, ...]:
    from fewbits.pt2.operators import _KNOWN

    aten = [
        f"torch.ops.aten.{name}.{overload}"
        for name in dir(torch.ops.aten)
        if not name.startswith("__")
        for overload in getattr(getattr(torch.ops.aten, name), "overloads", list)()
    ]
    return (
        *_KNOWN,
        *_KNOWN,
        *aten,
        {"as_int": 2**62},
        {"as_none": True},
        {"as_ints": [0, -1, 2**40]},
        {"as_float": 1e308},
        {"as_float": "NaN"},
        {"as_bool": True},
        {"as_string": "x"},
        {"as_int": 0},
        {"as_int": -1},
        {"as_tensor": {"name": "x"}},
        {"as_ints": []},
        {"as_ints": [2, 2]},
        {"as_scalar_type": 7},
        "relu",
        "conv2d",
    )


def _spoilt_pt2(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    if rng.random() < 0.1:
        return damaged(data, rng), False

    def spoil(name: str, content: bytes) -> bytes:
        if name.endswith(".json") and rng.random() < 0.9:
            return changed_json(content, rng, _pt2_words())
        return damaged(content, rng)

    def graph_first(name: str, content: bytes) -> bytes:
        document = json.loads(content)
        nodes = document["graph_module"]["graph"]["nodes"]
        for _ in range(rng.choice((1, 1, 2, 3))):
            node = rng.choice(nodes)
            if rng.random() < 0.4:
                node["target"] = rng.choice(_pt2_words()[:600]) if rng.random() < 0.9 else rng.choice(ODD)
            else:
                change(node["inputs"] or node, rng, _pt2_words()[-15:])
        return json.dumps(document).encode()

    if rng.random() < 0.6:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in members:
                archive.writestr(name, graph_first(name, content) if name.endswith("models/model.json") else content)
        return out.getvalue(), True
    return rezipped(data, spoil, rng, packed=True), True


def _pt2_read(path: Path) -> Any:
    capture(read_pt2(path), torch.rand(2, 1, 4, 4))


def _pt() -> bytes:
    buffer = io.BytesIO()
    torch.save(
        {
            "a.weight": torch.arange(12.0).reshape(3, 4),
            "a.bias": torch.zeros(3),
            "n": torch.tensor(7),
            "h": torch.ones(5, dtype=torch.bfloat16),
        },
        buffer,
    )
    return buffer.getvalue()


def _spoilt_zip(packed: bool) -> Spoil:
    def spoilt(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
        if rng.random() < 0.3:
            return damaged(data, rng), False
        return rezipped(data, lambda _, content: damaged(content, rng), rng, packed), True

    return spoilt


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.arange(64, dtype=np.uint8).reshape(4, 1, 4, 4), y=np.arange(4), w=np.ones((2, 3), np.float32))
    return buffer.getvalue()


def _spoilt_npz(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    def spoil(name: str, content: bytes) -> bytes:
        if rng.random() < 0.6:
            head = io.BytesIO()
            shape = tuple(
                rng.choice((0, 1, 4, 2**20, 2**31, 2**62, 3)) for _ in range(rng.choice((0, 1, 2, 4, 33, 70)))
            )
            descr = rng.choice(("|u1", "<f4", ">i8", "|O", "<U5", "|V8", "<c16", "|b1", "<M8[s]", "<f2", "|S0", "<i3"))
            np.lib.format.write_array_header_1_0(
                head, {"descr": descr, "fortran_order": rng.random() < 0.3, "shape": shape}
            )
            return head.getvalue() + content[128:]
        return damaged(content, rng)

    return (damaged(data, rng), False) if rng.random() < 0.2 else (rezipped(data, spoil, rng, packed=True), True)


# ------------------------------------------------------------------------------- texts and data


def _cache() -> bytes:
    return written(lambda path: cache.save_ranges(small_simulation(), path))


def _spoilt_cache(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    if rng.random() < 0.4:
        return damaged(data, rng), False
    document = json.loads(data)
    change(document, rng, ("input", [1e308], [0.5], [1], [float(2**70)]))
    if rng.random() < 0.9 and isinstance(document, dict):
        document.pop("digest", None)
        with contextlib.suppress(TypeError, ValueError):
            document["digest"] = cache._digest(document)
    return json.dumps(document).encode(), True


def _ranges(path: Path) -> Any:
    _, _, model = small_model()
    found = cache.load_ranges(model, plan(model, "w8a8"), path)
    return [(q.site, q.encoding.scale.tolist(), q.encoding.zero_point.tolist()) for q in found.quantizers()]


@lru_cache(maxsize=1)
def _recipes() -> tuple[dict[str, Any], ...]:
    from importlib import resources

    folder = resources.files("fewbits.quant.presets")
    return tuple(yaml.safe_load((folder / f"{name}.yaml").read_bytes()) for name in presets())


def _spoilt_recipe(_: bytes, rng: random.Random) -> tuple[bytes, bool]:
    document = copy.deepcopy(rng.choice(_recipes()))
    for _time in range(rng.choice((0, 1, 1, 2))):
        change(
            document,
            rng,
            (
                "float",
                "int4",
                "channel",
                [1, 128],
                "percentile(99.9)",
                "minmax",
                "lsq",
                "first",
                "table(0,1)",
                "e4m3",
                "q4.4",
                "kl(nvidia)",
                "int" + "9" * 30,
                "table(" + "1," * 99 + "1)",
            ),
        )
    try:
        text = yaml.safe_dump(document, default_flow_style=rng.random() < 0.5, allow_unicode=True)
    except yaml.YAMLError:
        text = str(document)
    if rng.random() < 0.5:
        lines = text.split("\n")
        extra = rng.choice(
            (
                "a: &a [*a]",
                "<<: *a",
                "? [a]",
                "!!int abc",
                "!!binary x",
                "? {a: b} : c",
                "&a a",
                "- - - -",
                "x: !!timestamp 2001-99-99",
                "x: 1e999",
                "x: .nan",
                "x: 0o7",
                "x: 1:2:3",
                "\t",
                "%YAML 1.1",
                "---",
                "...",
                "!!set {a}",
                "!!omap [a: 1]",
                "{" * 40,
                "[" * 40,
                "x: |\n  a",
                "version: 1",
                "a: &x [1,1,1,1,1,1]\nb: &y [*x,*x,*x,*x]\nc: &z [*y,*y,*y,*y,*y,*y]\nd: [*z,*z,*z,*z]",
            )
        )
        lines.insert(rng.randrange(len(lines) + 1), extra)
        text = "\n".join(lines)
    data = text.encode("utf-8", "surrogatepass")
    return (damaged(data, rng) if rng.random() < 0.4 else data), True


def _encodings() -> bytes:
    return written(lambda path: save_encodings(small_simulation(), path))


def _spoilt_json(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    return (damaged(data, rng) if rng.random() < 0.3 else changed_json(data, rng)), True


def _spoilt_text(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    if rng.random() < 0.5:
        return damaged(data, rng), True
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = rng.choice(
        (
            b"",
            b"a," + b"9" * 30,
            b"a0,-1",
            b'"a',
            b"a0,\xd9\xa1",
            b"a0," + b"9" * 5000,
            b"x: ffffffff",
            b"input: " + b"f" * 9,
            lines[at] * 3,
            b",",
            b"a0,1,2",
            b"\0",
            b"a0, 1 ",
            lines[0],
        )
    )
    return b"\n".join(lines), True


def _idx() -> bytes:
    return b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (2, 3, 4)) + bytes(range(24))


def _spoilt_gz(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    if rng.random() < 0.3:
        return damaged(gzip.compress(data, 1), rng), True
    inner = damaged(data, rng) if rng.random() < 0.8 else data + bytes(rng.choice((1, 10**6)))
    return gzip.compress(inner, 1), True


def _png() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.arange(40 * 36 * 3, dtype=np.uint8).reshape(40, 36, 3)).save(out, "png")
    return out.getvalue()


def _jpeg() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.arange(40 * 36 * 3, dtype=np.uint8).reshape(40, 36, 3)).save(out, "jpeg", progressive=True)
    return out.getvalue()


def _image(path: Path) -> Any:
    return Images((path,), Crop(16, 14)).read()


def _table_of_labels(path: Path) -> Any:
    folder = path.parent / "pictures"
    if not folder.exists():
        folder.mkdir()
        for number in range(4):
            (folder / f"a{number}.png").write_bytes(_png())
    os.replace(path, path.parent / "pictures_labels.csv")
    return find_images(folder)


def _llama() -> bytes:
    width, inner, blocks, heads, shared, vocabulary, context = header = [4, 6, 2, 2, 1, 5, 3]
    narrow = width // heads * shared
    floats = vocabulary * width + blocks * (2 * width + 2 * width * width + 2 * narrow * width + 3 * inner * width)
    floats += width + context * (width // heads)
    return np.array(header, np.int32).tobytes() + np.arange(floats, dtype=np.float32).tobytes()


def _spoilt_llama(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    if rng.random() < 0.3:
        return damaged(data, rng), True
    header = np.frombuffer(data[:28], np.int32).copy()
    header[rng.randrange(7)] = rng.choice((0, 1, -1, 2, 3, 4, -5, 2**31 - 1, -(2**31), 10**6))
    return header.tobytes() + data[28:], True


def _ending(ending: str, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader that goes by the ending of the name."""

    def renamed(path: Path) -> Any:
        named = path.with_name(f"a{ending}")
        os.replace(path, named)
        return read(named)

    return renamed


def _plain_tensors(path: Path) -> Any:
    return {name: tuple(tensor.shape) for name, tensor in load_weights(path).items()}


READERS: Mapping[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader("program", lambda: programs()[0], spoilt_program, lambda path: artifact.read(path).digest),
        Reader("program, run", lambda: programs()[0], plausible_program, run_everywhere),
        Reader("compressed weights", weights.seed_file, _spoilt_weights, _weights_file, signed=True),
        Reader(
            "checkpoint",
            lambda: written(lambda path: write_checkpoint(path, _JOB, _STATE)),
            containers(
                ("fewbits.checkpoint",), ({"tensor": ["tensor0", "float32"]}, "recipe", "float32", {"dict": []})
            ),
            lambda path: _plain(read_checkpoint(path, _JOB)),
            signed=True,
        ),
        Reader("checkpoint of a training", jobs.training_checkpoint, jobs.spoilt_checkpoint, jobs.go_on_training),
        Reader("checkpoint of a repair", lambda: written(jobs.go_on_rounding), jobs.spoilt_checkpoint,
               jobs.go_on_rounding),
        Reader("progress of a compression", jobs.compression_progress, jobs.spoilt_checkpoint,
               jobs.go_on_compressing),
        Reader("log of a search", jobs.search_log, jobs.spoilt_lines, jobs.go_on_searching),
        Reader("choices of engines", jobs.choices, _spoilt_json, jobs.read_choices),
        Reader("record of a reproduction", jobs.records, _spoilt_json, jobs.read_records),
        Reader("onnx", exported, spoilt_onnx, description),
        Reader("pt2", _pt2, _spoilt_pt2, _pt2_read),
        Reader("state dict of torch", _pt, _spoilt_zip(packed=True), _ending(".pt", _plain_tensors)),
        Reader(
            "safetensors",
            lambda: safetensors({"a": torch.arange(6.0), "b": torch.ones(2, 2, dtype=torch.int8)}),
            lambda data, rng: ((damaged(data, rng) if rng.random() < 0.5 else _safetensors(data, rng)), True),
            _ending(".safetensors", _plain_tensors),
        ),
        Reader("npz", _npz, _spoilt_npz, _ending(".npz", read_npz)),
        Reader("npz as a data set", _npz, _spoilt_npz, _ending(".npz", lambda path: load(f"npz:{path}"))),
        Reader("idx", _idx, lambda data, rng: (damaged(data, rng), True), read_idx),
        Reader("idx.gz", _idx, _spoilt_gz, _ending(".gz", read_idx)),
        Reader(
            "cifar10 binary", lambda: bytes(2 * 3073), lambda data, rng: (damaged(data, rng), True), read_cifar10_binary
        ),
        Reader(
            "png",
            _png,
            lambda data, rng: ((damaged(data, rng) if rng.random() < 0.3 else changed_png(data, rng)), True),
            _image,
        ),
        Reader("jpeg", _jpeg, lambda data, rng: (damaged(data, rng), True), _image),
        Reader("table of labels", lambda: b"file,class\na0,1\na1.png,0\na2,3\na3,9\n", _spoilt_text, _table_of_labels),
        Reader("llama2c", _llama, _spoilt_llama, _ending(".bin", _plain_tensors)),
        Reader(
            "recipe",
            lambda: yaml.safe_dump(_recipes()[0]).encode(),
            _spoilt_recipe,
            _ending(".yaml", lambda path: str(plan(small_model()[2], recipe(path)))),
        ),
        Reader("calibration cache", _cache, _spoilt_cache, _ranges, signed=True),
        Reader("encodings", _encodings, _spoilt_json, lambda path: load_encodings(small_simulation(), path)),
        Reader(
            "calibration table of TensorRT",
            lambda: written(lambda path: write_table(small_simulation(), path)),
            _spoilt_text,
            read_table,
        ),
    )
}


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    head = changed_json(data[8 : 8 + length], rng, ("F32", "BF16", [0, 2**47, 2**47], [0, 24]))
    return len(head).to_bytes(8, "little") + head + data[8 + length :]

"""Makes the files of `corpus/`: `PYTHONPATH=src python tests/attacks/make.py`.

They are kept, so that a file once refused stays refused though what makes it changes.
"""

import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from fewbits.artifact.file import WEIGHTS
from fewbits.storage import container

CORPUS = Path(__file__).parent / "corpus"
BODY = "version: 1\nweights: {format: int8}\nactivations: {format: uint8}\n"
TENFOLD = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))


def recipes() -> dict[str, bytes]:
    texts = {
        "anchors": BODY + TENFOLD, "anchors-as-rules": TENFOLD + BODY + "rules: *a8\n", "anchor-in-itself": "&a [*a]",
        "depth": BODY + "rules: " + "[" * 3000 + "]" * 3000, "no-date": BODY + "x: 2001-99-99\n",
        "no-integer": "version: !!int abc\n", "digits": "version: " + "9" * 10000 + "\n",
        "format-digits": BODY.replace("int8}", "int" + "9" * 5000 + "}"),
        "key-twice": BODY + "weights: {format: int2}\n",
        "python-object": BODY + "x: !!python/object/apply:os.getcwd []\n", "zero-byte": BODY + "x: \0\n",
        "two-documents": BODY + "---\n" + BODY}
    return {f"{name}.yaml": text.encode() for name, text in texts.items()} | {"no-text.yaml": b"\xff\xfe\xff"}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    rows = zlib.compress(bytes(1 + width) * min(height, 4), 9)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def pictures() -> dict[str, bytes]:
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**23), 9))
    whole = png(64, 64)
    return {"thin.png": png(60000, 1), "huge.png": png(13000, 13000), "tiff.png": b"II*\0\x08\0\0\0" + bytes(90),
            "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 300 300\nshowpage\n",
            "packed-text.png": whole[:33] + text + whole[33:], "half.png": whole[:50]}


def idx(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    return b"\0\0\x08" + bytes([len(shape)]) + b"".join(struct.pack(">I", size) for size in shape) + data


def arrays() -> dict[str, bytes]:
    made = {"rank-65.idx": idx((1,) * 65, b"\1"), "overflow.idx": idx((0, 2**32 - 1, 2**32 - 1, 2**32 - 1)),
            "bomb.idx.gz": gzip.compress(idx((10, 10), bytes(2**24)), 9, mtime=0)}
    for name, shape, descr in (("head", (2**40,), "|u1"), ("ranks", (1,) * 60, "|u1"), ("objects", (2,), "|O")):
        head, out = io.BytesIO(), io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(zipfile.ZipInfo("x.npy"), head.getvalue() + bytes(8))
        made[f"{name}.npz"] = out.getvalue()
    return made


def weights() -> dict[str, bytes]:
    def llama(*header: int) -> bytes:
        return np.array(header, np.int32).tobytes() + bytes(4)

    def state(tensors: dict[str, torch.Tensor]) -> bytes:
        out = io.BytesIO()
        torch.save(tensors, out)
        return out.getvalue()

    spread = {"w": torch.zeros(1).expand(10**6, 10**6)}
    return {"blocks.bin": llama(8, 8, 2**31 - 1, 1, 1, 8, 8), "negative.bin": llama(-8, 8, 1, 1, 1, 8, 8),
            "adds-up.bin": llama(4, -11, 1, 1, 1, 3, 85), "stride-0.pt": state(spread)}


def compressed(facts: dict, **tensors: np.ndarray) -> bytes:
    return container.build({WEIGHTS: np.frombuffer(container.to_json(facts), np.uint8), **tensors}, "forged")


def fewbits() -> dict[str, bytes]:
    empty = compressed({"t": {"type": "U8", "shape": [0, 2**39, 2**39]}}, t=np.zeros(0, np.uint8))
    table = {"centroids": [1, 2], "group": 4, "order": "all", "limit": 0, "stored": 4}
    huffman = compressed({"a": {"type": "F32", "shape": [4], "shared": table, "codes": ["huffman", 4, 1, 1, 1]}},
                         a=np.frombuffer(np.float32([1, 2]).tobytes() + b"\x12\x00", np.uint8))
    grows = compressed({f"t{n}": {"type": "F32", "shape": [2**20, 2**10], "shared": {
        "centroids": [1, 1], "group": 2**30, "order": "all", "limit": 0, "stored": 2**30},
        "codes": ["one", 2**30, 1, 1]} for n in range(9)},
        **{f"t{n}": np.frombuffer(np.float32(1).tobytes() + b"\0", np.uint8) for n in range(9)})
    return {"empty.fewbits": empty, "huffman.fewbits": huffman, "grows.fewbits": grows}


def graphs() -> dict[str, bytes]:
    """A small network's .pt2 file whose ReLU is another operator, or says another shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        exported = torch.export.export(net, (torch.rand(2, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if "sample_inputs" not in name}
    none, minus = {"as_none": True}, {"as_float": -1.0}

    def call(target: str, first: str, *rest: tuple[str, dict]) -> bytes:
        def change(document: dict) -> None:
            node = next(one for one in document["graph_module"]["graph"]["nodes"] if "relu" in one["target"])
            node["target"] = target
            node["inputs"] = [{**node["inputs"][0], "name": first},
                              *({"name": name, "arg": value, "kind": 1} for name, value in rest)]

        return edited("models/model.json", change)

    def edited(ending: str, change) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in members.items():
                if name.endswith(ending):
                    document = json.loads(data)
                    change(document)
                    data = json.dumps(document, separators=(",", ":")).encode()
                archive.writestr(zipfile.ZipInfo(name), data)
        return out.getvalue()

    def two_sizes(data: bytes) -> bytes:
        """The first member is said to take 2 GB in the archive, and 1 byte when it is read."""
        at = data.index(b"PK\x01\x02") + 20
        return data[:at] + (2**31 - 1).to_bytes(4, "little") + data[at + 4:]

    def stride(document: dict) -> None:
        document["config"]["0.weight"]["tensor_meta"].update(sizes=[{"as_int": 10**8}, {"as_int": 4}],
                                                             strides=[{"as_int": 0}, {"as_int": 1}])

    return {
        "norm-of-nothing.pt2": call(
            "torch.ops.aten._batch_norm_no_update.default", "input", ("weight", none), ("bias", none),
            ("running_mean", none), ("running_var", none), ("momentum", {"as_float": 1e308}), ("eps", minus)),
        "legit-norm.pt2": call(
            "torch.ops.aten._native_batch_norm_legit.no_stats", "input", ("weight", none), ("bias", none),
            ("training", {"as_bool": False}), ("momentum", minus), ("eps", {"as_float": 1.0})),
        "resize.pt2": call("torch.ops.aten.resize_.default", "self", ("size", {"as_ints": [10**6, 10**6]})),
        "from-file.pt2": call("torch.ops.aten.from_file.default", "self"),
        "strided.pt2": call("torch.ops.aten.as_strided.default", "self", ("size", {"as_ints": [2, 4]}),
                            ("stride", {"as_ints": [2**40, 1]})),
        "repeats.pt2": call("torch.ops.aten.repeat.default", "self", ("repeats", {"as_ints": [10**9, 10**9]})),
        "system.pt2": call("os.system", "self"), "stride-0.pt2": edited("weights_config.json", stride),
        "two-sizes.pt2": two_sizes(edited("none of them", stride))}


def described() -> dict[str, bytes]:
    """An ONNX file of nothing but metadata, which protobuf gives as bytes where it is no UTF-8."""
    model = onnx.ModelProto(ir_version=8)
    model.metadata_props.add(key="fewbits.profile", value="xxxx")
    return {"no-text.onnx": model.SerializeToString().replace(b"xxxx", b"\xff\xfe\xff\xfe")}


def main() -> None:
    for name, data in (recipes() | pictures() | arrays() | weights() | fewbits() | graphs() | described()).items():
        (CORPUS / name).write_bytes(data)


if __name__ == "__main__":
    main()

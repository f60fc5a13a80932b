"""Reads what `torch.export.save` writes, a .pt2 archive, without running anything that is in it.

torch's own loader unpickles the sample inputs and whatever weights say they are pickled, evaluates the symbolic sizes
as Python, compiles the guards, and resolves operators to any attribute of torch. Here the archive is a zip of plain
bytes (weights) and JSON (the graph); the sample inputs are never opened, a symbolic size is just one that moves, guards
are ignored, and operators are those of a closed list (pt2/operators.py). What does not fit is refused by name.
The graph runs on shapes alone (pt2/sizes.py) before it may run on numbers.
"""

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits.capture.traced import Traced, read_traced
from fewbits.errors import CaptureError, FileError
from fewbits.files import opened
from fewbits.graph.model import Model
from fewbits.limits import GRAPH_NODES, REPEATED_BYTES, REPEATED_ELEMENTS, TEXT_BYTES
from fewbits.pt2.graph import DTYPES, Pt2Error, read_graph
from fewbits.pt2.sizes import check_sizes

_ARCHIVE, _SCHEMA = "0", 8  # versions
_STRIDED = 7  # layout
_MODEL = "model"  # the name torch.export.save gives

# A forged file breaks its readers anywhere.
_FORGED = (zipfile.BadZipFile, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RecursionError,
           RuntimeError, NotImplementedError, OverflowError, AssertionError)


def read_pt2(path: str | Path) -> Model:
    """The network in a .pt2 file: an ordinary module that takes any batch, ready for capture.

    Raises FileError, naming the file, for one that is damaged, from another version, fixed to one batch size, or that
    holds what only unpickling or running code could read; CaptureError for what a graph cannot hold.
    """
    try:
        with opened(path, "what torch.export.save wrote") as file, zipfile.ZipFile(file) as archive:
            return _model(_Members(archive))
    except Pt2Error as refused:
        raise FileError(f"{path} {refused}") from None
    except CaptureError as error:
        raise CaptureError(f"{path}: {error}") from error
    except _FORGED as error:
        told = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise FileError(f"{path} is damaged or not what torch.export.save of torch 2.9 to 2.13 writes ({told}): save "
                        "it again") from error


class _Members:
    """The files in an archive, below its own folder; stored and apart from each other, so that all of them together are
    no larger than the archive."""

    def __init__(self, archive: zipfile.ZipFile):
        names = archive.namelist()
        if "serialized_exported_program.json" in names:
            raise Pt2Error("was written by torch 2.7 or older and keeps its weights pickled: save it again")
        versions = [name for name in names if name.endswith("/archive_version")]
        if len(versions) != 1:
            raise Pt2Error("is no archive of torch.export.save: give what that wrote")
        self._archive, self._folder = archive, versions[0].removesuffix("archive_version")
        if len(set(names)) < len(names):
            raise Pt2Error("names a file twice: save it again")
        packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise Pt2Error(f"has {packed[0]!r} compressed, which torch never does: save it again")
        odd = [info.filename for info in archive.infolist() if info.compress_size != info.file_size]
        if odd:
            raise Pt2Error(f"says two sizes of {odd[0]!r}: save it again")
        if sum(info.file_size for info in archive.infolist()) > (archive.start_dir or 0):
            raise Pt2Error("has files that lie over one another: save it again")

    def names(self, folder: str) -> list[str]:
        """Files below a folder of the archive."""
        start = self._folder + folder
        return [name.removeprefix(start) for name in self._archive.namelist() if name.startswith(start)]

    def read(self, name: str) -> bytes:
        return self._archive.read(self._folder + name)

    def json(self, name: str) -> Any:
        data = self.read(name)
        if len(data) > TEXT_BYTES:
            raise Pt2Error(f"has {len(data)} bytes in {name!r}, and {TEXT_BYTES} is the most: export a smaller network")
        return json.loads(data)


def _model(members: _Members) -> Model:
    if members.names("data/aotinductor/"):
        raise Pt2Error("holds compiled code and no graph: save the exported program itself")
    if f"{_MODEL}.json" not in members.names("models/"):
        raise Pt2Error(f"holds no exported program called {_MODEL!r}: give what torch.export.save wrote")
    if members.read("archive_version") != _ARCHIVE.encode() or members.read("byteorder") != b"little":
        raise Pt2Error("is of another version or byte order: save it again with torch 2.9 or newer")
    document = members.json(f"models/{_MODEL}.json")
    if document["schema_version"]["major"] != _SCHEMA:
        raise Pt2Error(f"has a graph of schema {document['schema_version']['major']}, and {_SCHEMA} is read: save it "
                      "again with torch 2.9 to 2.13")
    state = _tensors(members, "data/weights/", f"{_MODEL}_weights_config.json")
    state |= _tensors(members, "data/constants/", f"{_MODEL}_constants_config.json")
    read = read_graph(document["graph_module"])
    missing = [tensor for tensor in read.placeholders.values() if tensor and tensor not in state]
    if missing:
        raise Pt2Error(f"lacks the values of {missing[0]!r}: save it again")
    inputs = [name for name, tensor in read.placeholders.items() if not tensor]
    traced = Traced(read.graph, read.placeholders, state, read.buffers, read.results, read.structure)
    model = read_traced(traced, "tensor" if len(inputs) == 1 else "tuple").eval()
    if len(model.graph.nodes) > GRAPH_NODES:
        raise Pt2Error(f"has {len(model.graph.nodes)} calls, and {GRAPH_NODES} is the most: export a smaller network")
    for item in model.graph.inputs:
        if not item.shape or item.shape[0] is not None or None in item.shape[1:]:
            raise Pt2Error(f"takes {item.name!r} in shape {list(item.shape)}: export it with a batch that moves, and "
                          f"nothing else, dynamic_shapes={{{item.name!r}: {{0: torch.export.Dim.DYNAMIC}}}}")
    check_sizes(model)
    return model


def _tensors(members: _Members, folder: str, config: str) -> dict[str, torch.Tensor]:
    """The tensors of a folder by name; those that are stored once are one object."""
    stored: dict[str, torch.Tensor] = {}
    known: dict[str, torch.Tensor] = {}
    held = made = 0
    found: dict[str, torch.Tensor] = {}
    for name, entry in members.json(folder + config)["config"].items():
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise Pt2Error(f"keeps {name!r} pickled, which could run code: save a network of plain dense tensors")
        place = _plain_name(entry["path_name"])
        if place not in stored:
            stored[place] = torch.frombuffer(bytearray(members.read(folder + place)) or bytearray(1), dtype=torch.uint8)
            held += len(stored[place])
        key = json.dumps(entry, sort_keys=True)
        if key not in known:
            view = _tensor(stored[place], entry["tensor_meta"], name)
            made += view.nbytes
            if made > 2 * held + REPEATED_BYTES:
                raise Pt2Error(f"gives other names and shapes to the same stored numbers, {made} bytes in all with "
                               f"{name!r}: save it again")
            known[key] = view.clone()
        tensor = known[key]
        if entry["is_param"] and not isinstance(tensor, nn.Parameter):
            tensor = known[key] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        found[name] = tensor
    return found


def _plain_name(name: Any) -> str:
    if not isinstance(name, str) or "/" in name:
        raise Pt2Error(f"keeps a tensor in {name!r}: save it again")
    return name


def _tensor(data: torch.Tensor, meta: Mapping[str, Any], name: str) -> torch.Tensor:
    """A view of stored bytes (uint8). Raises Pt2Error for one that reaches beyond them, or whose numbers overlap."""
    sizes, strides = ([_number(item) for item in meta[what]] for what in ("sizes", "strides"))
    offset, dtype = _number(meta["storage_offset"]), DTYPES[meta["dtype"]]
    if meta["layout"] != _STRIDED or len(sizes) != len(strides) or min([*sizes, *strides, offset, 0]) < 0:
        raise Pt2Error(f"has {name!r} in a layout that is not dense: save a network of plain dense tensors")
    if 0 in sizes:
        if max(sizes) > REPEATED_ELEMENTS:
            raise Pt2Error(f"says that {name!r} has shape {sizes}: save it again")
        return torch.empty(sizes, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if (last + 1) * dtype.itemsize > len(data):
        raise Pt2Error(f"has {len(data)} bytes for {name!r}, fewer than its shape {sizes} takes: save it again")
    if math.prod(sizes) * dtype.itemsize > len(data) and math.prod(sizes) > REPEATED_ELEMENTS:
        raise Pt2Error(f"repeats the numbers of {name!r} with strides {strides}: save a copy of it, .contiguous()")
    whole = data[:len(data) // dtype.itemsize * dtype.itemsize].view(dtype)
    return whole.as_strided(sizes, strides, offset)


def _number(item: Mapping[str, Any]) -> int:
    if type(item.get("as_int")) is not int:
        raise Pt2Error("holds a weight whose size is not a number: save it again")
    return item["as_int"]

"""Compressed weights in a `.fewbits` file: a state dict, some of it shared, all of it coded (docs/file-format.md)."""

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewbits.artifact.file import WEIGHTS
from fewbits.artifact.sizes import Item
from fewbits.artifact.weight_facts import (
    FLOATS,
    WIDTHS,
    Stored,
    from_facts,
    packed_facts,
    part_sizes,
    parts,
    said_bytes,
    to_facts,
    unpacked_facts,
)
from fewbits.compress.coded import CodedShared, bound, decode_shared, encode_shared
from fewbits.compress.planes import decode_planes, encode_planes
from fewbits.compress.share import Shared
from fewbits.errors import FileError
from fewbits.files import write_whole
from fewbits.kernels.huffman import StreamError
from fewbits.limits import DECODED_FREELY, DECODED_TIMES
from fewbits.storage import container
from fewbits.storage.refusal import Refusal, quoted
from fewbits.storage.writer import this_writer

DECODED_LIMIT = 2**33
"""Bytes that one tensor may take in memory; a caller may ask for more or less."""

_TYPES: Mapping[str, torch.dtype] = MappingProxyType({
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U32": torch.uint32,
    "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool})
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_FACTS_COST = 32  # bytes of JSON that a plane takes


class WeightsFile:
    """The tensors of a compressed-weights file, each read, checked and decoded when it is asked for.

    Opening reads the header and the facts; the rest is mapped. limit: bytes one decoded tensor may take.
    Raises FileError, naming the file and the mend, for one that is missing, cut, damaged, or not such a file.
    """

    def __init__(self, path: str | Path, limit: int = DECODED_LIMIT):
        self.path, self._limit = str(path), limit
        with _told(self.path):
            self._open(_mapped(Path(path)))

    @classmethod
    def of_bytes(cls, data: bytes, limit: int = DECODED_LIMIT) -> "WeightsFile":
        """The same, of bytes in memory."""
        self = cls.__new__(cls)
        self.path, self._limit = "the bytes given", limit
        with _told(self.path):
            self._open(memoryview(data))
        return self

    def _open(self, data: memoryview) -> None:
        held = self._held = container.open_lazily(data)
        if WEIGHTS not in held.names:
            raise Refusal("holds no compressed weights", "name a file that `fewbits compress` wrote")
        document = held.take(WEIGHTS)
        if document.dtype != np.uint8 or document.nbytes > container.HEADER_LIMIT:
            raise Refusal(f"has facts of more than {container.HEADER_LIMIT} bytes, or not of bytes")
        self._facts = unpacked_facts(document.tobytes())
        # The hash covers these names in this order; so the header can give no tensor another's bytes.
        if not isinstance(self._facts, dict) or [WEIGHTS, *self._facts] != list(held.names):
            raise Refusal("has other tensors than its facts say")
        decoded, most = sum(map(said_bytes, self._facts.values())), DECODED_FREELY + DECODED_TIMES * held.size
        if self._limit <= DECODED_LIMIT and decoded > most:
            raise Refusal(f"has {held.size} bytes and would take {decoded} when decoded, {most} at most",
                          "give a file of weights that `fewbits compress` wrote")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors, in the order of the state dict."""
        return self._held.names[1:]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._held.size

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors, none of them decoded."""
        with _told(self.path):
            return {name: self._stored(name).shape for name in self.names}

    def tensor(self, name: str) -> Tensor:
        """One tensor, decoded; shared weights as the numbers they stand for."""
        with _told(self.path):
            stored = self._stored(name)
            content = stored.content
            if isinstance(content, CodedShared):
                return torch.from_numpy(_decoded(name, content).dense()).to(_TYPES[stored.type])
            if isinstance(content, tuple):
                try:
                    content = decode_planes(content, stored.count)
                except StreamError as error:
                    raise _damaged(name, error) from None
            if not stored.count:
                return torch.empty(stored.shape, dtype=_TYPES[stored.type])
            return torch.from_numpy(np.array(content)).view(_TYPES[stored.type]).reshape(stored.shape)

    def shared(self, name: str) -> Shared | None:
        """Codes and centroids of one tensor; None when its weights are not shared."""
        with _told(self.path):
            content = self._stored(name).content
            return _decoded(name, content) if isinstance(content, CodedShared) else None

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors, decoded."""
        return {name: self.tensor(name) for name in self.names}

    def items(self) -> tuple[Item, ...]:
        """Where the bytes of the file go, by tensor and part; they add up to its size."""
        with _told(self.path):
            items = [Item(name, what, size) for name in self.names
                     for what, size in part_sizes(self._stored(name)).items() if size]
            whole = (("facts", self._held.take(WEIGHTS).nbytes), ("hashes", self._held.hashes_bytes),
                     ("safetensors header", self._held.header_bytes), ("padding", self._held.padding))
            items += [Item("", what, size) for what, size in whole if size]
        assert sum(item.bytes for item in items) == self.size, "a byte is not accounted for"
        return tuple(items)

    def decoded_bytes(self) -> int:
        """What all tensors take when decoded."""
        with _told(self.path):
            return sum(self._stored(name).bytes_decoded for name in self.names)

    def bounds(self) -> dict[str, float]:
        """Entropy of codes and positions of each tensor with shared weights, in bytes."""
        with _told(self.path):
            held = {name: self._stored(name).content for name in self.names}
            return {name: bound(content) for name, content in held.items() if isinstance(content, CodedShared)}

    def coding(self, name: str) -> str:
        """How a tensor is coded, in a few words."""
        with _told(self.path):
            content = self._stored(name).content
            if isinstance(content, CodedShared):
                limit = f" up to {content.limit}" if content.limit else ""
                places = f", {content.order}{limit} by {content.places.coding}" if content.places else ""
                return f"codes by {content.codes.coding}{places}"
            return "planes" if isinstance(content, tuple) else "as it is"

    def _stored(self, name: str) -> Stored:
        if name not in self._facts:
            raise Refusal(f"has no tensor {quoted(name)}", "choose one of `names`")
        data = self._held.take(name)
        if data.dtype != np.uint8 or data.ndim != 1:
            raise Refusal(f"holds tensor {quoted(name)} in another form than bytes")
        return from_facts(name, self._facts[name], data.data, self._limit)


def holds_weights(path: str | Path) -> bool:
    """Whether the file is one of compressed weights, by its header alone. Raises FileError as WeightsFile does."""
    with _told(str(path)):
        return WEIGHTS in container.open_lazily(_mapped(Path(path))).names


def save_weights(state: Mapping[str, Tensor], path: str | Path, shared: Mapping[str, Shared] | None = None) -> int:
    """Writes a state dict; returns the bytes of the file. The same tensors give the same bytes.

    shared: by name, what to store in place of the tensor, whose type it takes when it is decoded; every other
    tensor is kept bit by bit. Before writing, every tensor is read back and compared. Raises FileError for a type
    that has no form here, for a name of the file's own, or when the disk refuses; an older file then stays.
    """
    data = weights_bytes(state, shared or {}, str(path))
    write_whole(path, data)
    return len(data)


def weights_bytes(state: Mapping[str, Tensor], shared: Mapping[str, Shared], path: str) -> bytes:
    """The bytes of the file. path: for messages only. Raises FileError."""
    tensors = {name: stored(name, tensor, shared.get(name), path) for name, tensor in state.items()}
    facts = packed_facts({name: to_facts(one) for name, one in tensors.items()})
    if len(facts) > container.HEADER_LIMIT:
        raise FileError(f"{path} was not written, because its facts would take {len(facts)} bytes: split the model")
    arrays = {WEIGHTS: np.frombuffer(facts, np.uint8)}
    for name, one in tensors.items():
        arrays[name] = np.frombuffer(b"".join(part.data for part in parts(one)), np.uint8)
    data = container.build(arrays, this_writer())
    _check_again(WeightsFile.of_bytes(data, limit=2**62), state, shared)
    return data


def stored(name: str, tensor: Tensor, shared: Shared | None, path: str) -> Stored:
    """A tensor in the fewest bytes. Raises FileError."""
    if tensor.dtype not in _NAMES or name.startswith("fewbits.") or tensor.ndim > container.RANK_LIMIT:
        raise FileError(f"{path} was not written, because tensor {name!r} ({tensor.dtype}, {tensor.ndim} axes) has no "
                        f"form in it: give names without `fewbits.`, types {', '.join(WIDTHS)}, and at most "
                        f"{container.RANK_LIMIT} axes")
    kind, shape = _NAMES[tensor.dtype], tuple(tensor.shape)
    if shared is not None:
        if kind not in FLOATS or shared.shape != shape:
            raise FileError(f"{path} was not written, because the shared weights of {name!r} are of another shape, or "
                            "no floats: share the tensor itself")
        return Stored(kind, shape, encode_shared(shared))
    data = _bytes_of(tensor)
    planes = encode_planes(data, WIDTHS[kind])
    if sum(plane.size + _FACTS_COST for plane in planes) < data.size:
        return Stored(kind, shape, planes)
    return Stored(kind, shape, data)


def _check_again(file: WeightsFile, state: Mapping[str, Tensor], shared: Mapping[str, Shared]) -> None:
    for name, tensor in state.items():
        expected = torch.from_numpy(shared[name].dense()).to(tensor.dtype) if name in shared else tensor
        again = file.tensor(name)
        assert again.dtype == tensor.dtype and again.shape == tensor.shape, name
        assert np.array_equal(_bytes_of(again), _bytes_of(expected)), f"{name} does not come back"


def _bytes_of(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _decoded(name: str, content: CodedShared) -> Shared:
    try:
        return decode_shared(content)
    except StreamError as error:
        raise _damaged(name, error) from None


def _damaged(name: str, error: StreamError) -> Refusal:
    return Refusal(f"cannot be decoded at tensor {quoted(name)}: {error}")


def _mapped(path: Path) -> memoryview:
    if "\0" in str(path):
        raise FileNotFoundError
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise Refusal("is no regular file", "name a .fewbits file")
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise Refusal("is cut short after 0 bytes")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class _told:  # noqa: N801  # reads as a word of the sentence it makes
    """Makes a FileError that names the file of a Refusal or a failure to read."""

    def __init__(self, path: str):
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Refusal):
            raise FileError(f"{self._path} {error}") from None
        if isinstance(error, StreamError):
            raise FileError(f"{self._path} cannot be decoded ({error}): copy it again, or compress the weights "
                            "again") from None
        if isinstance(error, FileNotFoundError):
            raise FileError(f"{self._path} does not exist: check the path") from None
        if isinstance(error, OSError):
            raise FileError(f"{self._path} cannot be read ({error.strerror or error}): "
                            "check its permissions and the disk") from None

"""Named tensors in one safetensors file, under a digest over every bit (docs/file-format.md, "Layout").

The safetensors library is not used to write (it orders metadata at random, and the same program must give
the same bytes) nor to read (every refusal needs its sentence, before anything is allocated). It reads what is
written here; the tests see to that.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from fewbits.storage.refusal import Refusal, quoted

VERSION = 1
HEADER_LIMIT = 16 * 2**20  # bytes, of the safetensors header; the same for the program's JSON
RANK_LIMIT = 8
HASH_BYTES = 8
HASHES = "fewbits.hashes"

_OURS = "name a file that fewbits saved, or copy it again"
_ELEMENTS_LIMIT = 2**48
_ALIGNMENT = 8
_LENGTH_BYTES = 8
_BLANK = "0" * 64
_DTYPES = {name: np.dtype(code) for name, code in {
    "F64": "<f8", "I64": "<i8", "U64": "<u8", "F32": "<f4", "I32": "<i4", "U32": "<u4",
    "F16": "<f2", "I16": "<i2", "U16": "<u2", "I8": "<i1", "U8": "<u1", "BOOL": "|b1"}.items()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, eq=False)
class Container:
    """What a file holds. writer: who wrote it; digest: 64 hex digits; tensors: read-only, in file order;
    header_bytes: length and JSON, without padding; padding: spaces behind it; hashes_bytes: of the tensors'
    hashes; size: of the whole file. In bytes."""

    writer: str
    digest: str
    tensors: Mapping[str, np.ndarray]
    header_bytes: int
    padding: int
    hashes_bytes: int
    size: int


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


# ------------------------------------------------------------------------------------- writing


def build(tensors: Mapping[str, np.ndarray], writer: str) -> bytes:
    """The file's bytes, all of them in memory: `pieces`, joined."""
    return b"".join(pieces(tensors, writer))


def pieces(tensors: Mapping[str, np.ndarray], writer: str) -> list[bytes | memoryview]:
    """The file's bytes, in order: its header, and a view of each tensor. Tensors keep their order, except that wider
    elements come first, so that each begins at a multiple of its own width."""
    arrays: dict[str, np.ndarray] = {}
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        ordered = array.astype(array.dtype.newbyteorder("<"), copy=False)
        arrays[name] = np.ascontiguousarray(ordered).reshape(array.shape)
    views = {name: _bytes_of(array) for name, array in arrays.items()}
    hashes = np.frombuffer(b"".join(map(short_hash, views.values())), np.uint8).reshape(-1, HASH_BYTES)
    arrays[HASHES], views[HASHES] = hashes, _bytes_of(hashes)

    header: dict[str, Any] = {"__metadata__": {"format": "fewbits", "version": str(VERSION),
                                               "writer": writer, "digest": _BLANK}}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype.newbyteorder("<")], "shape": list(array.shape),
                        "data_offsets": [begin, end]}
    text = to_json(header)
    text += b" " * (-len(text) % _ALIGNMENT)
    length = len(text).to_bytes(_LENGTH_BYTES, "little")
    digest = _digest(length + text, *views.values())
    return [length + text.replace(_BLANK.encode(), digest.encode(), 1), *views.values()]


def _bytes_of(array: np.ndarray) -> memoryview:
    """An array's memory, uncopied."""
    return array.reshape(-1).view(np.uint8).data


def stores(dtype: np.dtype) -> bool:
    """Whether a tensor of that type can be stored."""
    return dtype.newbyteorder("<") in _NAMES


def short_hash(*data: bytes | memoryview) -> bytes:
    """8 bytes of BLAKE2b: enough to name what is damaged; the SHA-256 digest is what refuses it."""
    found = hashlib.blake2b(digest_size=HASH_BYTES)
    for piece in data:
        found.update(piece)
    return found.digest()


def to_json(value: Any) -> bytes:
    """ASCII JSON without spaces, keys in their order; numbers as short as they round-trip."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _digest(head: bytes, *data: bytes | memoryview) -> str:
    """SHA-256 of the whole file, with 64 zeros where its own hex digits stand."""
    whole = hashlib.sha256(head)
    for piece in data:
        whole.update(piece)
    return whole.hexdigest()


# ------------------------------------------------------------------------------------- reading


def header_length(start: bytes) -> int:
    """Bytes of the safetensors header, from the first bytes of a file. Raises Refusal when there is none."""
    if len(start) <= _LENGTH_BYTES:
        raise Refusal(f"is cut short after {len(start)} bytes")
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if start[_LENGTH_BYTES:_LENGTH_BYTES + 1] != b"{":
        # Only now: a header of 640 bytes begins as a pickle does.
        if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
            raise Refusal("is a pickle or a zip, as .pt and .npz files are, and no .fewbits file",
                          "give the model.fewbits that `fewbits quantize` writes; weights go to its --weights, data to "
                          "--data npz:FILE")
        raise Refusal("is not a .fewbits file, or its first bytes are damaged", _OURS)
    if length > HEADER_LIMIT:
        raise Refusal(f"claims a header of {length} bytes, and {HEADER_LIMIT} is the most there may be",
                      _OURS)
    return length


def expected_size(head: bytes) -> int:
    """Bytes the whole file must have, from its length and header. Raises Refusal for no header of ours."""
    return len(head) + _entries(_parsed(head))[-1].end


def parse(data: bytes | memoryview) -> Container:
    """Tensors of a file's bytes, all hashes checked. Raises Refusal, naming the damaged tensor if it is one.

    Allocates nothing beyond the header's JSON: tensors are views of `data`.
    """
    length = header_length(bytes(data[:_LENGTH_BYTES + 1]))
    if len(data) < _LENGTH_BYTES + length:
        raise Refusal(f"is cut short inside its header, after {len(data)} bytes")
    head, body = bytes(data[:_LENGTH_BYTES + length]), memoryview(data)[_LENGTH_BYTES + length:]
    header = _parsed(head)
    entries = _entries(header)
    check_size(len(data), len(head) + entries[-1].end)
    facts = _facts(header)
    views = {entry.name: body[entry.begin:entry.end] for entry in entries}
    blanked = head.replace(facts["digest"].encode(), _BLANK.encode(), 1)
    if _digest(blanked, body) != facts["digest"]:
        raise Refusal(_what_is_damaged(entries, views))
    _check_version(facts)
    _check_hashes(entries, views)
    if to_json(header) != head[_LENGTH_BYTES:].rstrip(b" "):
        raise Refusal("has a header that fewbits did not write")
    tensors = {entry.name: np.frombuffer(views[entry.name], entry.dtype).reshape(entry.shape)
               for entry in entries if entry.name != HASHES}
    written = len(head[_LENGTH_BYTES:].rstrip(b" "))
    return Container(facts["writer"], facts["digest"], tensors, _LENGTH_BYTES + written, length - written,
                     views[HASHES].nbytes, len(data))


@dataclass(frozen=True, eq=False)
class Lazy:
    """A file whose tensors are read one at a time, each against its own hash.

    names: of the tensors, in file order, without the hashes. The digest over all bits is not checked, so whoever
    reads must know names, order and sizes from a tensor. header_bytes, padding, hashes_bytes, size: as in Container.
    """

    writer: str
    names: tuple[str, ...]
    header_bytes: int
    padding: int
    hashes_bytes: int
    size: int
    _entries: Mapping[str, _Entry]
    _body: memoryview
    _hashes: memoryview

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def take(self, name: str) -> np.ndarray:
        """A view of one tensor. Raises Refusal when it does not agree with its hash."""
        entry, number = self._entries[name], self._numbers[name]
        view = self._body[entry.begin:entry.end]
        if short_hash(view) != self._hashes[HASH_BYTES * number:HASH_BYTES * (number + 1)]:
            raise Refusal(f"is damaged in tensor {quoted(name)} or its hash")
        return np.frombuffer(view, entry.dtype).reshape(entry.shape)


def open_lazily(data: memoryview) -> Lazy:
    """As `parse`, but reads the header only. data: usually a mapped file. Raises Refusal as `parse` does."""
    length = header_length(bytes(data[:_LENGTH_BYTES + 1]))
    if len(data) < _LENGTH_BYTES + length:
        raise Refusal(f"is cut short inside its header, after {len(data)} bytes")
    head, body = bytes(data[:_LENGTH_BYTES + length]), data[_LENGTH_BYTES + length:]
    header = _parsed(head)
    entries = _entries(header)
    check_size(len(data), len(head) + entries[-1].end)
    facts = _facts(header)
    _check_version(facts)
    names = tuple(entry.name for entry in entries if entry.name != HASHES)
    last = entries[-1]
    if last.name != HASHES or last.end - last.begin != HASH_BYTES * len(names):
        raise Refusal("has no hash for each of its tensors")
    written = head[_LENGTH_BYTES:].rstrip(b" ")
    if to_json(header) != written:
        raise Refusal("has a header that fewbits did not write")
    return Lazy(facts["writer"], names, _LENGTH_BYTES + len(written), length - len(written), last.end - last.begin,
                len(data), {entry.name: entry for entry in entries}, body, body[last.begin:last.end])


def check_size(size: int, expected: int) -> None:
    """Raises Refusal unless the file has just the bytes its header speaks of."""
    if size < expected:
        raise Refusal(f"is cut short: it has {size} of {expected} bytes")
    if size > expected:
        raise Refusal(f"has {size - expected} bytes behind its end")


def from_json(text: bytes, what: str, encoding: str = "ascii") -> Any:
    """Inverse of `to_json`; Refusal for what is no JSON, nests too deeply, or says a key twice. encoding: of texts that
    others wrote, `utf-8`."""
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for name, value in pairs:
            if name in table:
                raise Refusal(f"says {quoted(name)} twice in its {what}")
            table[name] = value
        return table

    def never(constant: str) -> Any:
        raise ValueError(constant)

    try:
        return json.loads(text.decode(encoding), object_pairs_hook=once, parse_constant=never)
    except (ValueError, RecursionError):
        raise Refusal(f"has a damaged {what}") from None


def _parsed(head: bytes) -> dict[str, Any]:
    return from_json(head[_LENGTH_BYTES:], "header")


def _entries(header: dict[str, Any]) -> list[_Entry]:
    """Tensors of a header, one behind the other without gaps or overlaps."""
    entries = [_entry(name, entry) for name, entry in header.items() if name != "__metadata__"]
    end = 0
    for entry in entries:
        if entry.begin != end:
            raise Refusal(f"does not place tensor {quoted(entry.name)} behind the one before it")
        end = entry.end
    if not entries:
        raise _foreign()
    return entries


def _entry(name: str, entry: Any) -> _Entry:
    bad = Refusal(f"describes tensor {quoted(name)} in a way that cannot be")
    if not (isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}):
        raise bad
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not (_sizes(shape) and len(shape) <= RANK_LIMIT and _sizes(offsets) and len(offsets) == 2
            and isinstance(entry["dtype"], str)):
        raise bad
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise Refusal(f"holds tensor {quoted(name)} of type {quoted(entry['dtype'])}, which none of ours has",
                      _OURS)
    begin, end = offsets
    if end - begin != prod(shape) * dtype.itemsize or prod(max(size, 1) for size in shape) > _ELEMENTS_LIMIT:
        raise bad  # the latter: an empty tensor whose other sizes no array can have
    return _Entry(name, dtype, tuple(shape), begin, end)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**48 for size in value)


def _facts(header: dict[str, Any]) -> dict[str, str]:
    facts = header.get("__metadata__")
    if not isinstance(facts, dict) or facts.get("format") != "fewbits":
        raise _foreign()
    if all(isinstance(facts.get(key), str) for key in ("version", "writer", "digest")) and re.fullmatch(
            "[0-9a-f]{64}", facts["digest"]):
        return facts
    raise Refusal("has a damaged header")


def _foreign() -> Refusal:
    return Refusal("is a safetensors file, but fewbits did not write it", _OURS)


def _check_version(facts: Mapping[str, str]) -> None:
    # After the digest, so that a damaged version digit does not send anybody to look for an upgrade. The
    # place and meaning of the digest are therefore the same in all versions.
    version = facts["version"]
    if version == str(VERSION) and facts.keys() == {"format", "version", "writer", "digest"}:
        return
    if re.fullmatch("[1-9][0-9]{0,5}", version) and int(version) > VERSION:
        raise Refusal(f"has format version {version}, written by {quoted(facts['writer'])}, "
                      f"and this fewbits reads version {VERSION}", "upgrade fewbits")
    raise Refusal(f"has a format version {quoted(version)} or facts that never were")


def _check_hashes(entries: list[_Entry], views: Mapping[str, memoryview]) -> None:
    table = views.get(HASHES)
    hashed = [entry.name for entry in entries if entry.name != HASHES]
    if table is None or entries[-1].name != HASHES or len(table) != HASH_BYTES * len(hashed):
        raise Refusal("has no hash for each of its tensors")
    for i, name in enumerate(hashed):
        if short_hash(views[name]) != table[HASH_BYTES * i:HASH_BYTES * (i + 1)]:
            raise Refusal(f"is damaged in tensor {quoted(name)} or its hash")


def _what_is_damaged(entries: list[_Entry], views: Mapping[str, memoryview]) -> str:
    try:
        _check_hashes(entries, views)
    except Refusal as refusal:
        return refusal.reason
    return "is damaged in its header"

"""What a compressed-weights file says of each tensor, as JSON and back; nothing is taken on trust.

Every tensor is one run of bytes, its parts one behind the other in the order in which `parts` lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import zstandard

from fewbits.compress.coded import ORDERS, CodedShared, code_alphabet, filler_bytes, place_alphabet
from fewbits.compress.stream import CODINGS, Coded
from fewbits.storage.container import HEADER_LIMIT, RANK_LIMIT, from_json, to_json
from fewbits.storage.refusal import Refusal, quoted

WIDTHS: Mapping[str, int] = MappingProxyType({
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8, "I64": 8, "I32": 4, "I16": 2,
    "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1})
"""Bytes of an element, by the names safetensors gives the types."""

FLOATS = ("F64", "F32", "F16", "BF16")
_CENTROID = np.dtype("<f4")
_COUNT_LIMIT = 2**40
_ZSTD = b"\x28\xb5\x2f\xfd"  # a frame begins so, and JSON does not
_WINDOW_LIMIT = 2**27  # bytes, of zstd's memory


class Part(NamedTuple):
    """Bytes of a tensor and what they are."""

    what: str
    data: bytes


@dataclass(frozen=True, eq=False)
class Stored:
    """One tensor. type: of its elements, a key of WIDTHS; shape; content: uint8 bytes as they are, their planes, or
    shared weights."""

    type: str
    shape: tuple[int, ...]
    content: np.ndarray | tuple[Coded, ...] | CodedShared

    @property
    def count(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def bytes_decoded(self) -> int:
        """What the tensor takes in memory."""
        return self.count * WIDTHS[self.type]


def parts(stored: Stored) -> list[Part]:
    """The bytes of a tensor, in file order."""
    content = stored.content
    if isinstance(content, CodedShared):
        found = [Part("codebook", content.centroids.astype(_CENTROID).tobytes())]
        if content.places is not None:
            found += _coded_parts(content.places, "mask" if content.order == "mask" else "gaps")
        return found + _coded_parts(content.codes, "codes")
    if isinstance(content, tuple):
        return [part for plane in content for part in _coded_parts(plane, "values")]
    return [Part("values", content.tobytes())]


def part_sizes(stored: Stored) -> dict[str, int]:
    """Bytes by what they are; they add up to those of `parts`. Fillers are told apart from the other codes."""
    sizes: dict[str, int] = {}
    for what, data in parts(stored):
        sizes[what] = sizes.get(what, 0) + len(data)
    if isinstance(stored.content, CodedShared) and stored.content.fillers:
        sizes["fillers"] = filler_bytes(stored.content)
        sizes["codes"] -= sizes["fillers"]
    return sizes


def packed_facts(facts: Mapping[str, Any]) -> bytes:
    """The facts of all tensors as JSON, or that in a Zstandard frame where it is smaller."""
    text = to_json(facts)
    frame = zstandard.ZstdCompressor(level=19, write_content_size=True).compress(text)
    return min(text, frame, key=len)


def unpacked_facts(data: bytes) -> Any:
    """Inverse of `packed_facts`. Raises Refusal for what it does not write, before more than HEADER_LIMIT bytes are
    allocated."""
    if data.startswith(_ZSTD):
        try:
            # The frame says how much will come out, and zstandard would allocate just that: so ask first.
            size = zstandard.get_frame_parameters(data).content_size
            if not 0 < size <= HEADER_LIMIT:
                raise Refusal(f"has facts of more than {HEADER_LIMIT} bytes, or of none")
            data = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).decompress(
                data, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError:
            raise Refusal("has damaged facts") from None
        if len(data) != size:
            raise Refusal("has damaged facts")
    return from_json(data, "facts")


def to_facts(stored: Stored) -> dict[str, Any]:
    """Everything but the bytes."""
    facts: dict[str, Any] = {"type": stored.type, "shape": list(stored.shape)}
    content = stored.content
    if isinstance(content, CodedShared):
        facts["shared"] = {"centroids": list(content.centroids.shape), "group": content.group,
                           "order": content.order, "limit": content.limit, "stored": content.stored}
        if content.places is not None:
            facts["places"] = _coded_facts(content.places)
        facts["codes"] = _coded_facts(content.codes)
    elif isinstance(content, tuple):
        facts["planes"] = [_coded_facts(plane) for plane in content]
    return facts


def from_facts(name: str, facts: Any, data: memoryview, limit: int) -> Stored:
    """Inverse of `to_facts` and `parts` together. limit: bytes that the tensor may take when decoded.

    Raises Refusal, naming the tensor, for facts that `to_facts` does not write or that the bytes do not bear out.
    """
    try:
        return _stored(facts, data, limit)
    except _FactsError as error:
        raise Refusal(f"says of tensor {quoted(name)} {error}") from None


def said_bytes(facts: Any) -> int:
    """What a tensor takes in memory by its facts alone, which nothing has borne out yet; 0 where they say nothing."""
    kind, shape = (facts.get("type"), facts.get("shape")) if isinstance(facts, dict) else (None, None)
    if not (isinstance(kind, str) and isinstance(shape, list) and all(map(_is_count, shape))):
        return 0
    return prod(shape) * WIDTHS.get(kind, 0)


class _FactsError(Exception):
    """What is wrong with the facts."""


class _Bytes:
    """Hands out the bytes of a tensor from the front."""

    def __init__(self, data: memoryview):
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise _FactsError("that it has more bytes than are there")
        self._at += size
        return bytes(self._data[self._at - size:self._at])

    def finish(self) -> None:
        if self._at != len(self._data):
            raise _FactsError("that it has fewer bytes than are there")


def _stored(facts: Any, data: memoryview, limit: int) -> Stored:
    kinds = {"shared", "places", "codes", "planes"} & facts.keys() if isinstance(facts, dict) else set()
    if not isinstance(facts, dict) or facts.keys() - kinds != {"type", "shape"}:
        raise _FactsError("what no fewbits says")
    kind, shape = facts["type"], facts["shape"]
    if not isinstance(kind, str) or kind not in WIDTHS:
        raise _FactsError(f"that it is of type {quoted(kind)}, which is none")
    if not (isinstance(shape, list) and len(shape) <= RANK_LIMIT and all(_is_count(size) for size in shape)
            and prod(max(size, 1) for size in shape) < _COUNT_LIMIT):
        raise _FactsError(f"that it has shape {quoted(shape)}, which cannot be")
    size = prod(shape) * WIDTHS[kind]
    if not kinds:
        if size != len(data):
            raise _FactsError(f"that it has {size} bytes, and {len(data)} are there")
        return Stored(kind, tuple(shape), np.frombuffer(data, np.uint8))
    if size > limit or any(each > limit for each in shape):
        raise _FactsError(f"that it takes {size} bytes when decoded, and {limit} is the most it may")
    source = _Bytes(data)
    content = _planes(facts, kinds, source, kind) if "planes" in kinds else _shared(facts, kinds, source, kind)
    source.finish()
    return Stored(kind, tuple(shape), content)


def _planes(facts: dict[str, Any], kinds: set[str], source: _Bytes, kind: str) -> tuple[Coded, ...]:
    planes = facts["planes"]
    if kinds != {"planes"} or not isinstance(planes, list) or len(planes) != WIDTHS[kind]:
        raise _FactsError("that it has other planes than its type has bytes")
    count = prod(facts["shape"])
    return tuple(_coded(plane, source, 256, count, count) for plane in planes)


def _shared(facts: dict[str, Any], kinds: set[str], source: _Bytes, kind: str) -> CodedShared:
    said, shape = facts.get("shared"), tuple(facts["shape"])
    size = prod(shape)
    if not isinstance(said, dict) or said.keys() != {"centroids", "group", "order", "limit", "stored"}:
        raise _FactsError("other things of its shared weights than fewbits does")
    order, limit, group, stored, table = (said[key] for key in ("order", "limit", "group", "stored", "centroids"))
    if not (order in ORDERS and kind in FLOATS and all(map(_is_count, (limit, group, stored))) and stored <= size
            and kinds == {"shared", "codes"} | ({"places"} if order in ("mask", "fillers", "escapes") else set())):
        raise _FactsError("what cannot be of its shared weights")
    if (not {"fillers": 1 <= limit <= 256, "escapes": 1 <= limit <= 255}.get(order, limit == 0)
            or not (isinstance(table, list) and len(table) == 2 and all(map(_is_count, table)))):
        raise _FactsError("what cannot be of its gaps or centroids")
    groups, k = table
    if group * groups != size or (size and not group) or not 1 <= k <= 256 or code_alphabet(order, k) > 256:
        raise _FactsError("that its centroids are for other weights")
    centroids = np.frombuffer(source.take(groups * k * _CENTROID.itemsize), _CENTROID).reshape(groups, k)
    if not np.isfinite(centroids).all():
        raise _FactsError("that its centroids are not finite")
    places = None
    if "places" in kinds:
        # Each gap ends at a stored weight or moves on by `limit`, so there are never more gaps than weights.
        places = _coded(facts["places"], source, place_alphabet(order, limit), 0 if order != "mask" else size, size)
    least, most = (size, size) if order in ("all", "zeros") else (stored, size if order == "fillers" else stored)
    codes = _coded(facts["codes"], source, code_alphabet(order, k), least, most)
    return CodedShared(shape, group, centroids.astype(np.float32), order, limit, stored, codes, places)


def _coded_parts(coded: Coded, what: str) -> list[Part]:
    table = [Part("tables", coded.table)] if coded.table else []
    return [*table, Part(what, b"".join(coded.streams))]


def _coded_facts(coded: Coded) -> list[Any]:
    return [coded.coding, coded.count, coded.per, len(coded.table), *map(len, coded.streams)]


def _coded(facts: Any, source: _Bytes, alphabet: int, least: int, most: int) -> Coded:
    if not (isinstance(facts, list) and 4 <= len(facts) <= 8 and facts[0] in CODINGS
            and all(map(_is_count, facts[1:])) and least <= facts[1] <= most):
        raise _FactsError("what cannot be of its codes")
    coding, count, per, table, *streams = facts
    return Coded(coding, alphabet, count, per, source.take(table), tuple(map(source.take, streams)))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _COUNT_LIMIT

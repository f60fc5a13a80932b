"""Where the bytes of a file go, by layer and part, to the byte."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from fewbits.artifact.codec import Place
from fewbits.storage.container import Container

_PARTS = {"codes": "codes", "scale": "scales", "zero_point": "zero points", "bias": "biases"}


class Item(NamedTuple):
    """bytes: of one part of one layer; layer: "" for what belongs to the file as a whole."""

    layer: str
    part: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.bytes} bytes of {self.part}" + (f" of {self.layer}" if self.layer else "")


def itemise(held: Container, places: Mapping[str, Place], documents: Mapping[str, str]) -> tuple[Item, ...]:
    """Every byte of a file once: layers in file order, then the file's own parts.

    places: where each tensor of the program stands; documents: what tensors of JSON are. Arrays of one
    element are in the program's JSON, and count there.
    """
    counts: Counter[tuple[str, str]] = Counter()
    whole: Counter[tuple[str, str]] = Counter()
    for name, tensor in held.tensors.items():
        place = places.get(name, ())
        if len(place) > 1:
            counts[place[0], _part(place[1:])] += tensor.nbytes
        else:
            whole["", documents.get(name, "test vectors")] += tensor.nbytes
    whole["", "hashes"] = held.hashes_bytes
    whole["", "safetensors header"] = held.header_bytes
    whole["", "padding"] = held.padding
    items = tuple(Item(layer, part, size) for (layer, part), size in (counts + whole).items())
    assert sum(item.bytes for item in items) == held.size, "a tensor is not accounted for"
    return items


def _part(fields: Place) -> str:
    """In words: what the last field is, except that the data of a constant is one."""
    if fields[0] == "data" and fields[-1] == "codes":
        return "constants"
    return _PARTS.get(fields[-1], fields[-1])

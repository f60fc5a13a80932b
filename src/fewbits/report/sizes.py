"""Bytes before and after: the float model as a safetensors file would hold it, and the integers by item."""

import json
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from fewbits.numerics.encoding import ENCODING_BYTES
from fewbits.report.ledger import Ledger

_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
           torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
           torch.bool: "BOOL"}
_LENGTH = 8  # safetensors begins with the length of its header, and pads the header to this many bytes


class SizeItem(NamedTuple):
    """A part of a file. layer: whose it is, '' for the file's own; part: what it is."""

    layer: str
    part: str
    bytes: int


def float_file_bytes(model: nn.Module) -> int:
    """Bytes of a safetensors file of the model's parameters and buffers; a tied tensor is stored once.

    Format: https://huggingface.co/docs/safetensors, header and data without alignment between tensors.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())  # both list a tied tensor once
    header, offset = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES.get(tensor.dtype, str(tensor.dtype)), "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return _LENGTH + -(-text // _LENGTH) * _LENGTH + offset


def stored_items(entries: Ledger) -> tuple[SizeItem, ...]:
    """What any file of a program must hold: codes with their scales, biases, and a scale and a zero point
    (4 + 4 bytes) for each value that does not share another's encoding. For when no file was written."""
    stored = [SizeItem(entry.name, entry.kind, entry.code_bytes) for entry in entries.tensors
              if entry.code_bytes]
    scales = [SizeItem(entry.name, f"{entry.kind} scales", entry.scale_bytes) for entry in entries.tensors
              if entry.scale_bytes]
    grids = [SizeItem(entry.name, "activation encodings", ENCODING_BYTES) for entry in entries.tensors
             if entry.kind in ("input", "activation")]
    return tuple(stored + scales + grids)


def size_items(items: Iterable[tuple[str, str, int]]) -> tuple[SizeItem, ...]:
    """(layer, part, bytes) triples, as a file's reader lists them, as items."""
    return tuple(SizeItem(*item) for item in items)

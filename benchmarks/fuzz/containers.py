"""Containers with something changed inside, under right hashes."""

import json
import random
from typing import Any

import numpy as np

from benchmarks.fuzz.mutate import change, changed_json, damaged
from benchmarks.fuzz.reader import Spoil
from fewbits.storage import container


def reforged(data: bytes, rng: random.Random, documents: tuple[str, ...], words: tuple[Any, ...] = ()) -> bytes:
    """A container with one tensor, document, shape or name changed, under right hashes."""
    held = container.parse(data)
    tensors = {name: np.array(tensor) for name, tensor in held.tensors.items()}
    name = rng.choice(list(tensors))
    if rng.random() < 0.6:
        name = rng.choice([one for one in documents if one in tensors] or [name])
    tensor, dice = tensors[name], rng.random()
    if name in documents and dice < 0.85:
        tensors[name] = np.frombuffer(changed_json(tensor.tobytes(), rng, words), np.uint8)
    elif dice < 0.3:
        tensors[name] = np.frombuffer(damaged(tensor.tobytes(), rng), np.uint8)
    elif dice < 0.5:
        tensors[name] = tensor.reshape(-1)[: rng.randrange(tensor.size + 1)]
    elif dice < 0.6:
        tensors[name] = tensor.astype(rng.choice([np.float32, np.int32, np.uint8, np.int64, np.float64]))
    elif dice < 0.7:
        del tensors[name]
    elif dice < 0.8:
        tensors[rng.choice(("x", "fewbits.program", name + "#2", ""))] = tensors.pop(name)
    elif dice < 0.9 and tensor.dtype.kind == "f" and tensor.size:
        tensors[name] = tensor.copy()
        tensors[name].reshape(-1)[rng.randrange(tensor.size)] = rng.choice((np.nan, np.inf, -1.0, 0.0, 3e38, 1e-45))
    else:
        return _with_header(data, rng)
    return container.build(tensors, held.writer)


def _with_header(data: bytes, rng: random.Random) -> bytes:
    """Another header, its digest right."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header["__metadata__"]["digest"] = "0" * 64
    change(header, rng, (2**47, [0, 2**47, 2**47], "F32", "BF16", "F64"))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head.replace(b"0" * 64, container._digest(head, body).encode(), 1) + body


def containers(documents: tuple[str, ...], words: tuple[Any, ...] = ()) -> Spoil:
    def spoilt(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
        if rng.random() < 0.35:
            return damaged(data, rng), False
        return reforged(data, rng, documents, words), True

    return spoilt

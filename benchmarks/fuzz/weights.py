"""Compressed weights for the fuzzer: a file with every kind of content, and copies of it, damaged or forged."""

import random
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.fuzz.mutate import change, damaged
from fewbits.artifact.file import WEIGHTS
from fewbits.artifact.weight_facts import packed_facts, unpacked_facts
from fewbits.artifact.weights import WeightsFile, weights_bytes
from fewbits.compress.share import share
from fewbits.storage import container

LIMIT = 2**16  # bytes one tensor may take


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Damaged copies."""
    rng = random.Random(seed)
    for _ in range(count):
        yield damaged(data, rng)


def reforged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies in which one tensor or the facts were changed, all hashes right."""
    rng = random.Random(seed)
    held = container.parse(data)
    for _ in range(count):
        tensors = {name: np.array(tensor) for name, tensor in held.tensors.items()}
        name = rng.choice([WEIGHTS, *tensors])
        if name != WEIGHTS or rng.random() < 0.2:
            tensors[name] = np.frombuffer(damaged(tensors[name].tobytes(), rng), np.uint8)
        else:
            facts = unpacked_facts(tensors[WEIGHTS].tobytes())
            change(facts, rng)
            tensors[WEIGHTS] = np.frombuffer(rng.choice((packed_facts, container.to_json))(facts), np.uint8)
        yield container.build(tensors, held.writer)


def seed_file() -> bytes:
    """A small file with every kind of content: shared weights in several orders and codings, planes, plain bytes."""
    rng = np.random.default_rng(0)
    state, shared = {}, {}
    for name, density, k, group in (
        ("long", 1.0, 6, None),
        ("half", 0.5, 4, None),
        ("thin", 0.05, 16, None),
        ("rows", 0.3, 4, 40),
        ("none", 0.0, 4, None),
        ("few", 0.5, 2, None),
    ):
        weight = rng.laplace(size=(110 if name == "long" else 10, 40)).astype(np.float32)
        state[name] = torch.from_numpy(weight)
        shared[name] = share(weight, k, mask=None if density == 1 else rng.random(weight.shape) < density, group=group)
    state |= {
        "bias": torch.randn(10, generator=torch.Generator().manual_seed(0)),
        "count": torch.tensor(7),
        "planes": torch.linspace(0, 1, 300),
        "empty": torch.zeros(0, 3),
        "text": torch.arange(200) % 3,
    }
    return weights_bytes(state, shared, "the seed")


def read(data: bytes) -> dict[str, bytes]:
    """Type, shape and bytes of every tensor."""
    file = WeightsFile.of_bytes(data, LIMIT)
    return {
        name: f"{tensor.dtype} {tensor.shape}".encode()
        + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, tensor in file.state_dict().items()
    }

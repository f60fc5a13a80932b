"""Damaged and forged files through the reader of compressed weights: `python -m benchmarks.fuzz --files 200000`.

Two sorts. Damaged: bits and bytes changed, cut, doubled; such a file must be refused with a FewbitsError, or give the
original tensors. Forged: the same over the parts or the facts, with all hashes made right again; such a file must
be refused, or decode to whatever it says, within the limits. No other exception, no long time, no large memory.
"""

import argparse
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewbits.artifact.file import WEIGHTS
from fewbits.artifact.weight_facts import packed_facts, unpacked_facts
from fewbits.artifact.weights import WeightsFile, weights_bytes
from fewbits.compress.share import share
from fewbits.errors import FewbitsError
from fewbits.storage import container

LIMIT = 2**16  # bytes one tensor may take
MEMORY = 2**26  # bytes of address space that the process may still take
SECONDS = 5.0


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Damaged copies."""
    rng = random.Random(seed)
    for _ in range(count):
        yield _damaged(data, rng)


def reforged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies in which one tensor or the facts were changed, all hashes right."""
    rng = random.Random(seed)
    held = container.parse(data)
    for _ in range(count):
        tensors = {name: np.array(tensor) for name, tensor in held.tensors.items()}
        name = rng.choice([WEIGHTS, *tensors])
        if name != WEIGHTS or rng.random() < 0.2:
            tensors[name] = np.frombuffer(_damaged(tensors[name].tobytes(), rng), np.uint8)
        else:
            facts = unpacked_facts(tensors[WEIGHTS].tobytes())
            _change(facts, rng)
            tensors[WEIGHTS] = np.frombuffer(rng.choice((packed_facts, container.to_json))(facts), np.uint8)
        yield container.build(tensors, held.writer)


def _damaged(data: bytes, rng: random.Random) -> bytes:
    copy = bytearray(data)
    at = rng.randrange(len(copy)) if copy else 0
    ways: list[Callable[[], Any]] = [
        lambda: copy.__setitem__(at, copy[at] ^ 1 << rng.randrange(8)),
        lambda: copy.__setitem__(slice(at, at + 4), rng.randbytes(4)),
        lambda: copy.__delitem__(slice(at, None)),
        lambda: copy.__delitem__(slice(at, at + rng.randrange(1, 9))),
        lambda: copy.__setitem__(slice(at, at), copy[at:at + rng.randrange(1, 65)]),
        lambda: copy.extend(rng.randbytes(rng.randrange(1, 9))),
        lambda: copy.__setitem__(slice(at, at + 8), b"\xff" * 8),
    ]
    if copy:
        for _ in range(rng.choice((1, 1, 1, 3))):
            at = rng.randrange(len(copy)) if copy else 0
            if copy:
                rng.choice(ways)()
    return bytes(copy)


def _change(facts: Any, rng: random.Random) -> None:
    """Replaces, removes or doubles one thing somewhere inside."""
    while True:
        keys: list[Any] = list(facts) if isinstance(facts, dict) else list(range(len(facts)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(facts[key], dict | list) and facts[key] and rng.random() < 0.9:
            facts = facts[key]
            continue
        if rng.random() < 0.15:
            del facts[key]
        elif isinstance(facts, list) and rng.random() < 0.15:
            facts.append(facts[key])
        else:
            old = facts[key]
            near = [old + 1, old - 1, old * 2] if type(old) is int else []
            facts[key] = rng.choice([*near, 0, 1, -1, 255, 256, 2**16, 2**31, 2**63, 10**30, 1.5, None, True, "",
                                     "zstd", "huffman", "packed", "one", "all", "zeros", "mask", "fillers", "escapes",
                                     "F64", [], {}, [2**40] * 3])
        return


def seed_file() -> bytes:
    """A small file with every kind of content: shared weights in several orders and codings, planes, plain bytes."""
    rng = np.random.default_rng(0)
    state, shared = {}, {}
    for name, density, k, group in (("long", 1.0, 6, None), ("half", 0.5, 4, None), ("thin", 0.05, 16, None),
                                    ("rows", 0.3, 4, 40), ("none", 0.0, 4, None), ("few", 0.5, 2, None)):
        weight = rng.laplace(size=(110 if name == "long" else 10, 40)).astype(np.float32)
        state[name] = torch.from_numpy(weight)
        shared[name] = share(weight, k, mask=None if density == 1 else rng.random(weight.shape) < density, group=group)
    state |= {"bias": torch.randn(10, generator=torch.Generator().manual_seed(0)), "count": torch.tensor(7),
              "planes": torch.linspace(0, 1, 300), "empty": torch.zeros(0, 3), "text": torch.arange(200) % 3}
    return weights_bytes(state, shared, "the seed")


def read(data: bytes) -> dict[str, bytes]:
    """Type, shape and bytes of every tensor."""
    file = WeightsFile.of_bytes(data, LIMIT)
    return {name: f"{tensor.dtype} {tensor.shape}".encode()
            + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            for name, tensor in file.state_dict().items()}


def _limit_memory() -> None:
    """Makes any allocation beyond MEMORY fail, which then shows as a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz-finding.fewbits"))
    arguments = parser.parse_args()
    data = seed_file()
    original = read(data)
    half = arguments.files // 2
    _limit_memory()
    worst = 0.0
    for what, files in (("damaged", mutations(data, half, arguments.seed)),
                        ("forged", reforged(data, arguments.files - half, arguments.seed))):
        refused = decoded = 0
        for mutant in files:
            start = time.perf_counter()
            try:
                found = read(mutant)
                assert what == "forged" or found == original, "damaged, and other tensors came out"
                decoded += 1
            except FewbitsError:
                refused += 1
            except BaseException:
                arguments.keep.parent.mkdir(parents=True, exist_ok=True)
                arguments.keep.write_bytes(mutant)
                print(f"{what} file kept at {arguments.keep}")
                raise
            worst = max(worst, time.perf_counter() - start)
            assert worst < SECONDS, f"{worst} s"
        print(f"{what}: {refused} refused, {decoded} decoded")
    print(f"longest {worst * 1e3:.1f} ms, never more than {MEMORY / 2**20:.0f} MiB above the start, "
          f"seed {arguments.seed}")


if __name__ == "__main__":
    main()

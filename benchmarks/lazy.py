"""A large file of compressed weights, of which one tensor is asked for: `python -m benchmarks.lazy build/big.fewbits`.

Writes the file first where there is none: 64 tensors of 16 MiB that nothing compresses, 1.07 GB. Then drops it from
the system's memory, opens it, decodes one tensor, and says what was read from the disk and what the process grew by.
Linux only.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fewbits.artifact.weights import WeightsFile, save_weights

TENSORS, SIDE = 64, 4096
ASKED = f"layer{TENSORS * 5 // 8}.weight"


def write(path: Path) -> None:
    """Random bytes, so that the file is as large as its tensors."""
    generator = torch.Generator().manual_seed(0)
    state = {f"layer{i}.weight": torch.randint(0, 256, (SIDE, SIDE), generator=generator, dtype=torch.uint8)
             for i in range(TENSORS)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(state, path)


def forget(path: Path) -> None:
    """Drops the file's pages from the system's memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def told(what: str, work: Callable[[], Any]) -> Any:
    """Does it, and prints time, bytes read from the disk, and by how much the process's peak grew."""
    read, most, start = _read_from_disk(), _most_memory(), time.perf_counter()
    result = work()
    spent = time.perf_counter() - start
    print(f"{what}: {1e3 * spent:.0f} ms, {(_read_from_disk() - read) / 2**20:.1f} MiB read from the disk, "
          f"peak {(_most_memory() - most) / 2**20:.1f} MiB higher")
    return result


def _read_from_disk() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    if not path.exists():
        write(path)
        print("written; run it again, so that writing is not in the peak")
        return
    forget(path)
    print(f"{path}: {path.stat().st_size} bytes")
    file = told("open", lambda: WeightsFile(path))
    tensor = told(f"decode {ASKED}, {SIDE * SIDE / 2**20:.0f} MiB", lambda: file.tensor(ASKED))
    assert tensor.shape == (SIDE, SIDE)


if __name__ == "__main__":
    main()

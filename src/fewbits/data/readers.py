"""Files that hold examples and labels. Nothing is ever unpickled; a damaged file is refused by name."""

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fewbits.errors import DataError

_CIFAR_RECORD = 1 + 3 * 32 * 32


def read_npz(path: Path) -> Mapping[str, np.ndarray]:
    """All arrays of an .npz file. Raises DataError if it is missing, damaged, or holds Python objects."""
    if not path.is_file():
        raise DataError(f"There is no file {path}; give the path of an .npz file.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except Exception as error:  # a damaged file breaks the parsers in more ways than they name
        raise DataError(f"{path} is damaged or no .npz of plain arrays; fetch or save it again.") from error


def read_idx(path: Path) -> np.ndarray:
    """A uint8 array from an idx file, plain or .gz. Raises DataError when it is damaged or of another type.

    Source: yann.lecun.com/exdb/mnist: two zero bytes, type, rank, big-endian int32 sizes, data.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an idx file of bytes; fetch it again.")
    start = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    expected = start + math.prod(shape)
    if len(data) != expected:
        raise DataError(f"{path} has {len(data)} bytes, its header asks for {expected}; fetch it again.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def read_cifar10_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 3, 32, 32] and labels uint8 [N] from a file of CIFAR-10's binary version.

    Raises DataError when the file is not a whole number of records. Source: cs.toronto.edu/~kriz/cifar.html.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error
    if data.size == 0 or data.size % _CIFAR_RECORD:
        raise DataError(f"{path} has {data.size} bytes, no whole records of {_CIFAR_RECORD}; get it again.")
    records = data.reshape(-1, _CIFAR_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]

"""Files that hold examples and labels. Nothing is ever unpickled; a damaged file is refused by name."""

import gzip
import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from fewbits.errors import DataError, FileError
from fewbits.files import opened, read_whole
from fewbits.limits import RANK, UNPACKED_BYTES

_CIFAR_RECORD = 1 + 3 * 32 * 32
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# What the parsers of zip and npy raise over a damaged file.
_DAMAGED = (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, NotImplementedError, OverflowError,
            SyntaxError, MemoryError, RecursionError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path) -> Mapping[str, np.ndarray]:
    """All arrays of an .npz file, each measured before it is unpacked.

    Raises DataError if the file is missing, damaged, holds Python objects, or asks for more than it may.
    """
    try:
        with opened(path, "an .npz file") as file, zipfile.ZipFile(file) as archive:
            packed = sum(info.file_size for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED)
            if packed > UNPACKED_BYTES:
                raise DataError(f"{path} unpacks to {packed} bytes, and {UNPACKED_BYTES} is the most for a compressed "
                                "file; save it with np.savez, uncompressed.")
            if sum(info.file_size for info in archive.infolist()) > packed + (archive.start_dir or 0):
                raise DataError(f"{path} has arrays that lie over one another; save it again.")
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise DataError(f"{path} names an array twice; save it again.")
            return {name.removesuffix(".npy"): _npy(archive, name, path) for name in names}
    except FileError as error:
        raise DataError(str(error)) from None
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged or no .npz of plain arrays; fetch or save it again.") from error


def _npy(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """One array, whose header must ask for just the bytes behind it."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError(f"npy version {version}")
        shape, fortran, dtype = _HEADERS[version](member)
        told = name.removesuffix(".npy")
        if dtype.hasobject:
            raise DataError(f"{told!r} of {path} holds Python objects, which could run code; save plain numbers.")
        size = archive.getinfo(name).file_size
        if len(shape) > RANK or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
            raise DataError(f"{told!r} of {path} has {size} bytes, fewer than its shape {list(shape)[:RANK]} of "
                            f"{dtype} takes; fetch or save it again.")
        array = np.empty(math.prod(shape), dtype)
        view, stream, at = array.view(np.uint8).data, cast(io.BufferedIOBase, member), 0
        while at < array.nbytes:
            read = stream.readinto(view[at:])
            if not read:
                raise ValueError("cut short")
            at += read
        if member.read(1):
            raise DataError(f"{told!r} of {path} has more bytes than its shape {list(shape)} of {dtype} takes; fetch "
                            "or save it again.")
    return array.reshape(shape, order="F" if fortran else "C")


def read_idx(path: Path) -> np.ndarray:
    """A uint8 array from an idx file, plain or .gz, measured by its header before it is unpacked. Raises DataError when
    it is damaged, of another type, or unpacks to more than `UNPACKED_BYTES`.

    Source: yann.lecun.com/exdb/mnist: two zero bytes, type, rank, big-endian int32 sizes, data.
    """
    try:
        with opened(path, "an idx file") as file:
            if path.suffix != ".gz":
                return _idx(cast(io.BufferedIOBase, file), path, os.fstat(file.fileno()).st_size)
            with gzip.open(file) as unpacked:
                return _idx(unpacked, path, UNPACKED_BYTES)
    except FileError as error:
        raise DataError(str(error)) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error


def _idx(stream: io.BufferedIOBase, path: Path, limit: int) -> np.ndarray:
    """limit: bytes that the data may have."""
    head = stream.read(4)
    if len(head) < 4 or head[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an idx file of bytes; fetch it again.")
    sizes = stream.read(4 * head[3])
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    asked = math.prod(shape)
    if len(shape) > RANK or len(sizes) != 4 * head[3]:
        raise DataError(f"{path} has a header of {head[3]} axes, {RANK} at most, in {len(sizes)} bytes; fetch it.")
    if max(asked, *shape, 0) > limit:
        raise DataError(f"{path} has a header that asks for shape {list(shape)}, and may hold {limit} bytes; fetch it "
                        "again.")
    data = stream.read(asked + 1)
    if len(data) != asked:
        raise DataError(f"{path} has {'more' if len(data) > asked else len(data)} bytes behind its header, which asks "
                        f"for {asked}; fetch it again.")
    return np.frombuffer(data, np.uint8).reshape(shape).copy()


def read_cifar10_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 3, 32, 32] and labels uint8 [N] from a file of CIFAR-10's binary version.

    Raises DataError when the file is not a whole number of records. Source: cs.toronto.edu/~kriz/cifar.html.
    """
    try:
        data = np.frombuffer(read_whole(path, UNPACKED_BYTES, "a file of CIFAR-10"), np.uint8)
    except FileError as error:
        raise DataError(str(error)) from None
    if data.size == 0 or data.size % _CIFAR_RECORD:
        raise DataError(f"{path} has {data.size} bytes, no whole records of {_CIFAR_RECORD}; get it again.")
    records = data.reshape(-1, _CIFAR_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]

"""Files that are either wholly there or as they were before, and files that are read only where they are files."""

import contextlib
import fcntl
import mmap
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from fewbits.errors import FileError


def write_whole(path: str | Path, data: bytes | Iterable[bytes | memoryview],
                check: Callable[[Path], None] = lambda written: None) -> None:
    """Writes beside, syncs to the disk, then renames. A link is followed, and the file it points at replaced.

    data: the bytes, or pieces of them in order, of which one is in memory at a time; check: is given the file that was
    written, before it takes the name, and raises what keeps it from that.
    Raises FileError when that fails, and for a target that is no regular file (a device, a pipe, a folder, a link to
    itself); what was there before stays, and nothing else does.
    """
    try:
        target = Path(os.path.realpath(path))
        _check_target(path, target)
        _clear_leftovers(target)
        beside, file = _part(target)
        try:
            with file:
                file.writelines((data,) if isinstance(data, bytes) else data)
                file.flush()
                os.fsync(file.fileno())
            check(beside)
            os.replace(beside, target)
        except BaseException:  # an interrupt too leaves nothing behind
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(f"{os.fspath(path)} was not written ({told}), and what was there is as before: "
                        "make room, or choose another place") from None
    _sync_folder(target.parent)


def read_whole(path: str | Path, limit: int, what: str) -> bytes:
    """All bytes of a regular file. limit: the most it may have; what: it is, with its article, for the sentence.

    Raises FileError, at once, for a pipe, a device or a folder, for one that is larger, missing or cannot be read.
    """
    with opened(path, what) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise FileError(f"{path} has {size} bytes, and {what} may have {limit} at most: give a smaller one")
        try:
            return file.read(size)
        except OSError as error:
            raise FileError(f"{path} cannot be read ({error.strerror}): check its disk") from None


def opened(path: str | Path, what: str) -> BinaryIO:
    """A regular file, open to be read. what: it is, with its article. Raises FileError where there is none: nothing is
    waited for, a pipe without a writer neither."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist: give {what}") from None
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise FileError(f"{path} cannot be read ({told}): give {what}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileError(f"{path} is no regular file: give {what}")
    return os.fdopen(handle, "rb")


@contextlib.contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """Waits until no other process is within `alone_in` of this folder: for what reads a file and then writes it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_target(path: str | Path, target: Path) -> None:
    """Raises FileError for a target that would not be a file like any other afterwards."""
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = ("a folder" if stat.S_ISDIR(mode) else "a link that leads to itself" if stat.S_ISLNK(mode)
                else "a pipe or a device")
        raise FileError(f"{os.fspath(path)} was not written: it is {kind}; name a file, or a place where there is none")


def mapped(path: Path) -> memoryview:
    """A file's bytes, read as they are looked at."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _part(target: Path) -> tuple[Path, BinaryIO]:
    """A new file beside the target, locked for as long as it is open, so that others see that it is being written."""
    while True:
        # Not tempfile: its files are private to the owner, and a saved model is as readable as others.
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        file = open(beside, "xb")  # noqa: SIM115, the caller closes it
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return beside, file
        file.close()  # another process took it for a leftover, before it was locked


def _clear_leftovers(target: Path) -> None:
    """Removes what processes that were killed while writing this file left beside it: parts that nobody has locked."""
    with contextlib.suppress(OSError):
        for left in target.parent.iterdir():
            if _is_part(left.name, target.name):
                with contextlib.suppress(OSError, FileError), opened(left, "a part") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()


def _is_part(name: str, of: str) -> bool:
    middle = name.removeprefix(f".{of}.").removesuffix(".part")
    return name == f".{of}.{middle}.part" and re.fullmatch("[0-9a-f]{8}", middle) is not None


def _sync_folder(folder: Path) -> None:
    """Makes the new name last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

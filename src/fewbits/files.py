"""Files that are either wholly there or as they were before."""

import contextlib
import os
import secrets
from pathlib import Path

from fewbits.errors import FileError


def write_whole(path: str | Path, data: bytes) -> None:
    """Writes beside, syncs to the disk, then renames. A link is followed, and the file it points at replaced.

    Raises FileError when that fails; what was there before stays, and nothing else does.
    """
    try:
        target = Path(os.path.realpath(path))
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            # Not tempfile: its files are private to the owner, and a saved model is as readable as others.
            with open(beside, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
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


def _sync_folder(folder: Path) -> None:
    """Makes the new name last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

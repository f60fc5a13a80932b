"""Writing files so that nothing is ever lost: beside the old one, then in its place."""

import os
import tempfile
from pathlib import Path

from fewbits.errors import FileError


def write_whole(path: str | Path, data: bytes) -> None:
    """Puts `data` at `path`; the file that was there stays whole until the new one is on the disk.

    Raises FileError, with the old file untouched, when the folder is missing or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        kept = "; the file that was there is untouched" if path.exists() else ""
        raise FileError(f"cannot write {path}: {error.strerror or error}{kept}") from error


def _umask() -> int:
    """The process's mask for new files, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""The native library, where there is one, and the level of instructions it uses."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from fewbits.kernels.build import LIBRARY

Level = Literal["numpy", "portable", "avx2", "avx512"]
LEVELS: tuple[Level, ...] = get_args(Level)

_INTERFACE = 2  # kernels.h, kInterface


def _load() -> ctypes.CDLL | None:
    """The library; None when it is absent, of another version, or not for this machine, or FEWBITS_KERNELS=numpy."""
    if os.environ.get("FEWBITS_KERNELS") == "numpy" or not LIBRARY.is_file():
        return None
    try:
        library = ctypes.CDLL(str(LIBRARY))
        if library.fb_interface() != _INTERFACE:
            return None
    except (OSError, AttributeError):
        return None
    address, size = ctypes.c_void_p, ctypes.c_int64
    for name, result, arguments in (
            ("fb_best_cuts", ctypes.c_int32, (address, size, size, address)),
            ("fb_encode", size, (address, size, address, address, address)),
            ("fb_decode", ctypes.c_int32, (address, address, address, size, address, address)),
            ("fb_histogram", None, (address, size, address)),
            ("fb_count", None, (address, size, ctypes.c_int32, size, address)),
            ("fb_set_level", None, (ctypes.c_int32,)), ("fb_level", ctypes.c_int32, ()),
            ("fb_best_level", ctypes.c_int32, ())):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_library = _load()
_wanted: Level | None = None


def native() -> ctypes.CDLL | None:
    """The library to call; None when NumPy is to do the work."""
    return None if _wanted == "numpy" else _library


def levels() -> tuple[Level, ...]:
    """What can be chosen here, from the slowest to the fastest."""
    return LEVELS[:1] if _library is None else LEVELS[:2 + _library.fb_best_level()]


def level() -> Level:
    """What is used."""
    return "numpy" if native() is None or _library is None else LEVELS[1 + _library.fb_level()]


@contextmanager
def use(wanted: Level) -> Iterator[None]:
    """Uses that level, or the best one below it that is here, until the end of the block. For all threads."""
    global _wanted
    before = level()
    _choose(wanted)
    try:
        yield
    finally:
        _choose(before)


def _choose(wanted: Level) -> None:
    global _wanted
    _wanted = wanted
    if _library is not None and wanted != "numpy":
        _library.fb_set_level(LEVELS.index(wanted) - 1)

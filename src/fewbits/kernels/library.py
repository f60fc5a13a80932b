"""The native library, where there is one, and the level of instructions it uses."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal, get_args

from fewbits.errors import KernelError
from fewbits.kernels.build import LIBRARY
from fewbits.options import options_checked

Level = Literal["numpy", "portable", "avx2", "avxvnni", "avx512", "amx", "neon"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""`numpy`, then those of native/dispatch.h in its order. avxvnni: AVX2 with VNNI; avx512: AVX512 F, BW, DQ, VL and
VNNI; amx: that, and tiles of bytes; neon: with the dot product. Every level gives the same bits."""

VARIABLE = "FEWBITS_LEVEL"
"""The environment variable that names a level."""

INTERFACE = 10  # kernels.h, kInterface
_VBMI = 1  # dispatch.h, kVbmi
PATH = os.environ.get("FEWBITS_LIBRARY") or str(LIBRARY)  # another build: benchmarks/fuzz_kernels.py


def _load() -> ctypes.CDLL | None:
    """The library; None when it is absent, of another version, or not for this machine."""
    if not os.path.isfile(PATH):
        return None
    try:
        library = ctypes.CDLL(PATH)
        if library.fb_interface() != INTERFACE:
            return None
    except (OSError, AttributeError):
        return None
    address, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    for name, result, arguments in (
            ("fb_best_cuts", number, (address, size, size, address)),
            ("fb_encode", size, (address, size, address, address, address)),
            ("fb_decode", number, (address, address, address, size, address, address)),
            ("fb_histogram", None, (address, size, address)),
            ("fb_count", None, (address, size, number, size, address)),
            ("fb_levels", number, ()), ("fb_features", number, ()), ("fb_level", number, ()),
            ("fb_set_level", number, (number,)),
            ("fb_run", number, (address,)),
            ("fb_scratch", size, (address, number)), ("fb_packed_bytes", size, (address,)),
            ("fb_pack", number, (address, address, size)),
            ("fb_grouped_bytes", size, (number, size, size, size)),
            ("fb_pack_grouped", number, (address, address, number, size, size, size, address, size))):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_library = _load()
_wanted: Level | None = None
_choices = 0


@cache
def _start() -> None:
    """Takes the level that the environment names, once. Raises KernelError where it is none, or not here."""
    named = os.environ.get(VARIABLE)
    if not named:
        return
    if named not in LEVELS:
        raise KernelError(f"{VARIABLE} is {named!r}: name one of {', '.join(LEVELS)}")
    here = levels()
    if named not in here:
        why = "there is no native library" if _library is None else "this processor has not got it"
        raise KernelError(f"{VARIABLE} is {named!r}, but {why}: name one of {', '.join(here)}")
    _choose(LEVELS[LEVELS.index(named)])


def loaded() -> ctypes.CDLL | None:
    """The library, where there is one, whatever level is in use."""
    return _library


def native() -> ctypes.CDLL | None:
    """The library to call; None when NumPy is to do the work."""
    _start()
    return None if _wanted == "numpy" else _library


def levels() -> tuple[Level, ...]:
    """What can be chosen here, from the slowest to the fastest."""
    if _library is None:
        return LEVELS[:1]
    here = _library.fb_levels()
    return (LEVELS[0], *(level for bit, level in enumerate(LEVELS[1:]) if here >> bit & 1))


def picks_bytes() -> bool:
    """Whether the level in use picks bytes from registers by numbers (AVX512 VBMI)."""
    return _library is not None and level() in ("avx512", "amx") and bool(_library.fb_features() & _VBMI)


def level() -> Level:
    """What is used."""
    library = native()
    return "numpy" if library is None else LEVELS[1 + library.fb_level()]


@options_checked
@contextmanager
def use(wanted: Level) -> Iterator[None]:
    """Uses that level until the end of the block, for all threads. Raises KernelError where it is not here."""
    before = level()
    if wanted not in levels():
        raise KernelError(f"level {wanted!r} is not here: choose one of {', '.join(levels())}")
    _choose(wanted)
    try:
        yield
    finally:
        _choose(before)


def choices() -> int:
    """How often the level was chosen: what was prepared for a level holds as long as this stays."""
    _start()
    return _choices


def _choose(wanted: Level) -> None:
    global _wanted, _choices
    _wanted, _choices = wanted, _choices + 1
    if _library is not None and wanted != "numpy":
        _library.fb_set_level(LEVELS.index(wanted) - 1)

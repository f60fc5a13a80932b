"""CPUID: what the processor that runs this process says of itself (Intel SDM, volume 2A; AMD APM, volume 3).

Asked by the native library, or without one by the same few instructions written into memory. The operating system's own
list, /proc/cpuinfo, would not do: in an emulator it is the host's.
"""

import ctypes
import mmap
import platform
import sys
from collections.abc import Callable
from functools import cache

from fewbits.kernels import library

Registers = tuple[int, int, int, int]
"""eax, ebx, ecx, edx."""

_Ask = Callable[[int, int], Registers | None]

# int cpuid(leaf edi, subleaf esi, registers rdx) and uint64 xgetbv(), for the System V calling convention of x86-64.
_CPUID = bytes.fromhex("53 89f8 89f1 4989d0 0fa2 418900 41895804 41894808 4189500c b801000000 5b c3")
_XGETBV = bytes.fromhex("31c9 0f01d0 48c1e220 4809d0 c3")
_PAGE = 4096


def cpuid(leaf: int, subleaf: int = 0) -> Registers | None:
    """What CPUID answers; None where there is no such leaf, no CPUID, or no way to ask."""
    found = _ways()
    return None if found is None else found[0](leaf, subleaf)


def saved_registers() -> int:
    """Bits of XCR0: which registers the operating system saves; 0 where it saves none or nobody can tell."""
    found, first = _ways(), cpuid(1)
    return found[1]() if found is not None and first is not None and first[2] >> 27 & 1 else 0


@cache
def _ways() -> tuple[_Ask, Callable[[], int]] | None:
    """CPUID and XGETBV as functions; None where neither way is open."""
    return _of_library() or _of_memory()


def _of_library() -> tuple[_Ask, Callable[[], int]] | None:
    found = library.loaded()
    if found is None or not hasattr(found, "fb_cpuid"):  # an older build
        return None
    ask, saved = found.fb_cpuid, found.fb_xgetbv
    ask.restype, ask.argtypes = ctypes.c_int32, (ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
    saved.restype, saved.argtypes = ctypes.c_uint64, ()
    return _checked(ask), saved


def _of_memory() -> tuple[_Ask, Callable[[], int]] | None:
    if platform.machine() not in ("x86_64", "AMD64") or sys.platform == "win32":
        return None
    try:
        page = mmap.mmap(-1, _PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a system that lets nobody write what is run
        return None
    page.write(_CPUID + _XGETBV)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))  # keeps the page, too
    ask = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(start)
    saved = ctypes.CFUNCTYPE(ctypes.c_uint64)(start + len(_CPUID))

    def within(leaf: int, subleaf: int, registers: ctypes.Array) -> int:
        """As the library: 0 for a leaf that the processor does not have, which it would answer with another's."""
        ask(leaf & 0x80000000, 0, registers)
        return 0 if leaf > registers[0] else ask(leaf, subleaf, registers)

    return _checked(within, page), saved


def _checked(ask: Callable[[int, int, ctypes.Array], int], *kept: object) -> _Ask:
    """kept: what the function needs as long as it lives."""
    def answer(leaf: int, subleaf: int) -> Registers | None:
        assert kept is not None
        registers = (ctypes.c_uint32 * 4)()
        if not ask(leaf, subleaf, registers):
            return None
        eax, ebx, ecx, edx = registers
        return eax, ebx, ecx, edx

    return answer

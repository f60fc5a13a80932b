"""What this processor is and can do, as far as equality with an engine rests on it."""

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from fewbits.kernels.cpuid import cpuid, saved_registers
from fewbits.options import options_checked

Feature = Literal["avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx_vnni", "amx_int8"]

Target = Literal["any", "vnni", "this"]
"""For which processors a file is written: any x86-64, those with VNNI, or as is fastest on the one that writes it."""

_EBX, _ECX, _EDX, _EAX = 1, 2, 3, 0
_BITS: dict[Feature, tuple[int, int, int, int]] = {  # leaf, subleaf, register, bit
    "avx2": (7, 0, _EBX, 5), "fma": (1, 0, _ECX, 12), "avx512f": (7, 0, _EBX, 16), "avx512bw": (7, 0, _EBX, 30),
    "avx512dq": (7, 0, _EBX, 17), "avx512vl": (7, 0, _EBX, 31), "avx512_vnni": (7, 0, _ECX, 11),
    "avx_vnni": (7, 1, _EAX, 4), "amx_int8": (7, 0, _EDX, 25),
}
_AVX, _AVX512, _AMX = 0x6, 0xE6, 0x60006  # registers that the system must save, bits of XCR0
_X86 = ("x86_64", "AMD64", "amd64")


@options_checked
@dataclass(frozen=True)
class Processor:
    """name: its own; architecture: `x86_64`, or what the system calls it (`aarch64`); features: what CPUID says it has
    and the system lets be used, of those that integer arithmetic rests on; None where nobody can tell."""

    name: str
    architecture: str
    cores: int
    features: tuple[Feature, ...] | None

    @property
    def is_x86(self) -> bool:
        """Whether it is one that fewbits knows engines on: 64-bit x86."""
        return self.architecture == "x86_64"

    @property
    def adds_pairs_in_16_bits(self) -> bool:
        """Whether ONNX Runtime adds products of uint8 and int8 codes in pairs, in 16 bits that saturate: with AVX2 or
        AVX-512, but without VNNI. (Older processors, and products of codes that are both unsigned or both signed, are
        added in 32 bits.) True also where nobody can tell, so that callers choose the safe way."""
        if not self.is_x86:
            return False
        if self.features is None:
            return True
        has = set(self.features)
        if not {"avx2", "fma"} <= has:
            return False
        wide = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= has
        return ("avx512_vnni" if wide else "avx_vnni") not in has

    @property
    def fuses_additions(self) -> bool:
        """Whether ONNX Runtime adds two quantized tensors by fused multiply-adds, as eq. 7 has it for `fma`. False also
        where nobody can tell."""
        return self.features is not None and {"avx2", "fma"} <= set(self.features)

    def __str__(self) -> str:
        told = "features unknown" if self.features is None else ", ".join(self.features) or "no AVX2"
        return f"{self.name or self.architecture} ({told})"


@cache
def this_processor() -> Processor:
    """The processor that this process runs on, emulated or not."""
    machine = platform.machine()
    architecture = "x86_64" if machine in _X86 else machine
    features = _features() if architecture == "x86_64" else ()
    return Processor(_name(), architecture, os.cpu_count() or 1, features)


def _features() -> tuple[Feature, ...] | None:
    saved = saved_registers()
    if cpuid(1) is None:
        return None

    def has(feature: Feature) -> bool:
        leaf, subleaf, register, bit = _BITS[feature]
        registers = cpuid(leaf, subleaf)
        needed = _AMX if feature.startswith("amx") else _AVX512 if feature.startswith("avx512") else _AVX
        return registers is not None and registers[register] >> bit & 1 == 1 and saved & needed == needed

    return tuple(feature for feature in get_args(Feature) if has(feature))


def _name() -> str:
    """The processor's own name; where it does not tell, the system's for it."""
    if (cpuid(0x80000004)) is not None:
        registers = [cpuid(leaf) or () for leaf in (0x80000002, 0x80000003, 0x80000004)]
        text = b"".join(register.to_bytes(4, "little") for four in registers for register in four)
        name = " ".join(text.split(b"\0")[0].decode("ascii", "replace").split())
        if name:
            return name
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.is_file() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor()

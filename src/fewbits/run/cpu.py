"""What this processor can do, as far as equality with an engine rests on it."""

import platform
from pathlib import Path

_FLAGS = Path("/proc/cpuinfo")


def adds_products_in_32_bits() -> bool:
    """Whether ONNX Runtime's 8-bit kernels are exact here for all weights: VNNI on x86-64.

    False also where the system does not tell (only Linux does), so that callers choose the safe way.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not _FLAGS.exists():
        return False
    flags = next((line for line in _FLAGS.read_text().splitlines() if line.startswith("flags")), "")
    return bool({"avx512_vnni", "avx_vnni"} & set(flags.split()))

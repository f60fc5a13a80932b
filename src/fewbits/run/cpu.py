"""What this processor is and can do, as far as equality with an engine rests on it."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


@dataclass(frozen=True)
class Processor:
    """name, features: as Linux's /proc/cpuinfo gives them, features only those integer arithmetic may use;
    empty where the system does not tell."""

    name: str
    cores: int
    features: tuple[str, ...]

    @property
    def adds_products_in_32_bits(self) -> bool:
        """Whether ONNX Runtime's 8-bit kernels are exact here for weights beyond ±64 (VNNI). False also where the
        system does not tell, so that callers choose the safe way."""
        return bool({"avx512_vnni", "avx_vnni"} & set(self.features))


def this_processor() -> Processor:
    """The first processor of this machine."""
    path = Path("/proc/cpuinfo")
    first = path.read_text().split("\n\n")[0] if path.is_file() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    info = {key.strip(): value.strip() for key, _, value in pairs}
    flags = info.get("flags", "").split()
    return Processor(info.get("model name", platform.processor()), os.cpu_count() or 1,
                     tuple(name for name in _FEATURES if name in flags))

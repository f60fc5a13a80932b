"""Where figures were taken: the processor, what it can do, and the versions that computed."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
_PACKAGES = ("fewbits", "torch", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Machine:
    """features: what the CPU has that integer arithmetic may use; versions: by package."""

    system: str
    processor: str
    cores: int
    features: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]


def this_machine() -> Machine:
    """The machine and the versions that run now; what the system does not tell is left empty."""
    info = _cpuinfo()
    flags = info.get("flags", "").split()
    versions = [("python", platform.python_version())]
    versions += [(name, _version(name)) for name in _PACKAGES]
    return Machine(f"{platform.system()} {platform.machine()}", info.get("model name", platform.processor()),
                   os.cpu_count() or 1, tuple(name for name in _FEATURES if name in flags), tuple(versions))


def _cpuinfo() -> dict[str, str]:
    """The first processor of Linux's /proc/cpuinfo; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from its source tree

"""Where figures were taken: the processor, what it can do, and the versions that computed."""

import platform
from dataclasses import dataclass
from importlib import metadata

from fewbits.engines.processor import this_processor
from fewbits.version import __version__

_PACKAGES = ("torch", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Machine:
    """features: what the CPU has that integer arithmetic may use; versions: by package."""

    system: str
    processor: str
    cores: int
    features: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions)
        return f"{self.processor or self.system}, {self.cores} cores ({', '.join(self.features)}); {versions}"


def this_machine() -> Machine:
    """The machine and the versions that run now; what the system does not tell is left empty."""
    processor = this_processor()
    versions = [("python", platform.python_version()), ("fewbits", __version__)]
    versions += [(name, _version(name)) for name in _PACKAGES]
    return Machine(f"{platform.system()} {platform.machine()}", processor.name, processor.cores,
                   processor.features or (), tuple(versions))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from its source tree

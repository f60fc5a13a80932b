"""Which labs there are, and where: in the installed package, or beside `src` in a checkout."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from fewbits.errors import FileError
from fewbits.options import choice


def labs() -> Mapping[str, Path]:
    """Labs by name. Raises FileError where neither the package nor the checkout holds any."""
    package = Path(str(resources.files("fewbits")))
    for folder in (package / "labs", package.parents[1] / "labs"):
        found = {path.stem: path for path in sorted(folder.glob("*.py"))}
        if found:
            return found
    raise FileError(f"there are no labs in {package / 'labs'}, nor beside its source: install fewbits whole")


def lab(name: str) -> Path:
    """The file of a lab. Raises FileError for a name that none has."""
    found = labs()
    if name not in found:
        raise FileError(f"there is no lab {name!r}: {choice(name, found)}")
    return found[name]

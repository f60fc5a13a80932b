"""Which engine was the fastest for which program here, kept on disk, so that it is measured once.

One small JSON file, `engines.json` in the folder that FEWBITS_CACHE names, else in `fewbits` under XDG_CACHE_HOME or
~/.cache; where FEWBITS_CACHE is empty nothing is kept. A file that is damaged, or of another version, counts as empty,
and one that cannot be written as not there: only time is lost.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fewbits.errors import FileError
from fewbits.files import alone_in, read_whole, write_whole

VARIABLE = "FEWBITS_CACHE"
"""The environment variable that names the folder."""
_VERSION = 1
_MOST, _LARGEST = 1000, 2**20  # entries, the oldest go first; bytes that are read


@dataclass(frozen=True)
class Choice:
    """engine: its name; reason: what was measured, in words."""

    engine: str
    reason: str


def folder() -> Path | None:
    """Where choices are kept; None for nowhere."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    above = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # a user without a home
        return (Path(above) if above else Path.home() / ".cache") / "fewbits"
    return None


def known(key: str) -> Choice | None:
    """What was chosen for a key, a text of any length."""
    place = folder()
    return None if place is None else _read(place / "engines.json").get(_digest(key))


def keep(key: str, choice: Choice) -> None:
    """Keeps it for later processes, where there is a place."""
    place = folder()
    if place is None:
        return
    with suppress(OSError, FileError):
        place.mkdir(parents=True, exist_ok=True)
        with alone_in(place):
            entries = _read(place / "engines.json")
            entries.pop(_digest(key), None)
            entries[_digest(key)] = choice
            last = list(entries.items())[-_MOST:]
            told = {"fewbits engines": _VERSION, "choices": {name: [each.engine, each.reason] for name, each in last}}
            write_whole(place / "engines.json", (json.dumps(told, indent=1) + "\n").encode())


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Choice]:
    try:
        held = json.loads(read_whole(path, _LARGEST, "a file of choices"))
        if held["fewbits engines"] != _VERSION:
            return {}
        return {name: Choice(str(engine), str(reason)) for name, (engine, reason) in held["choices"].items()}
    except (FileError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}

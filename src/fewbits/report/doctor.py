"""What fewbits finds on this machine: versions, processor, kernels, engines, and what is missing and how to get it."""

import os
import re
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fewbits.engines.kept_choices import folder
from fewbits.engines.processor import this_processor
from fewbits.engines.registry import engine, engine_names
from fewbits.errors import FewbitsError, KernelError
from fewbits.kernels import library
from fewbits.report.machine import Machine, this_machine

EXTRAS = {"demo": "`fewbits demo` and the data set digits", "openvino": "engine openvino",
          "search": "`fewbits search`: the solver HiGHS", "cluster": "`fewbits search --scheduler`",
          "benchmark": "NNCF beside fewbits in benchmarks", "fuzz": "atheris, for `benchmarks.fuzz.guided`"}
"""What the extras of the package are for."""


@dataclass(frozen=True)
class Kernels:
    """The native library. path: where it lies; levels: that are built and run here, from the slowest to the fastest;
    level: that is used; wanted: what FEWBITS_LEVEL says, '' where it says nothing; missing: why they do not run, and
    the mend, '' where they do."""

    path: str
    levels: tuple[str, ...]
    level: str
    wanted: str
    missing: str


@dataclass(frozen=True)
class EngineHere:
    """promises: whether it must give a program's codes; missing: what it lacks here, and how to get that, or ''."""

    name: str
    promises: bool
    missing: str


@dataclass(frozen=True)
class Extra:
    """An optional package. version: '' where it is not installed; purpose: what needs it."""

    name: str
    package: str
    version: str
    purpose: str


@dataclass(frozen=True)
class Diagnosis:
    """choices: the folder that keeps which engine was the fastest, '' for none; missing: sentences, each with what is
    not here and how to get it."""

    machine: Machine
    kernels: Kernels
    engines: tuple[EngineHere, ...]
    extras: tuple[Extra, ...]
    choices: str
    missing: tuple[str, ...]


def diagnosis() -> Diagnosis:
    """Looks at everything, runs nothing long, and raises nothing."""
    kernels = _kernels()
    engines = tuple(_engine(name, kernels) for name in engine_names())
    extras = _extras()
    missing = [kernels.missing] if kernels.missing else []
    missing += [f"engine {each.name}: {each.missing}" for each in engines
                if each.missing and each.name not in ("native", *EXTRAS)]
    missing += [f"{each.package}, for {each.purpose}: pip install 'fewbits[{each.name}]'" for each in extras
                if not each.version]
    if this_processor().features is None:
        missing.append("what the processor can do: CPUID cannot be asked here, so the safe way is taken everywhere")
    place = folder()
    return Diagnosis(this_machine(), kernels, engines, extras, "" if place is None else str(place), tuple(missing))


def _kernels() -> Kernels:
    path, wanted = library.PATH, os.environ.get(library.VARIABLE, "")
    try:
        level = library.level()
    except KernelError as error:
        return Kernels(path, library.levels(), "", wanted, str(error))
    if library.loaded() is not None:
        return Kernels(path, library.levels(), level, wanted, "")
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    build = "python -m fewbits.kernels.build makes it"
    why = "it is of another version, or for another machine" if Path(path).is_file() else "it was not built"
    return Kernels(path, library.levels(), level, wanted, f"the native library, {path}: {why}; " + (
        build if compiler else f"install a C++ compiler such as g++, then {build}"))


def _engine(name: str, kernels: Kernels) -> EngineHere:
    if name in ("native", "fastest") and kernels.missing and not kernels.level:
        return EngineHere(name, True, kernels.missing)
    try:
        return EngineHere(name, engine(name).promises, "")
    except FewbitsError as error:
        return EngineHere(name, False, re.sub("^engine '.*' cannot run: ", "", str(error)))


def _extras() -> tuple[Extra, ...]:
    """As the installed package names them; none where it runs from its source tree."""
    try:
        required = metadata.requires("fewbits") or ()
    except metadata.PackageNotFoundError:
        return ()
    found = []
    for line in required:
        match = re.match(r"([\w.-]+).*; extra == ['\"](\w+)['\"]", line)
        if match and match[2] in EXTRAS:
            found.append(Extra(match[2], match[1], _version(match[1]), EXTRAS[match[2]]))
    return tuple(found)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""

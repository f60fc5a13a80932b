"""Compiles the native kernels: at installation (hatch_build.py), or by hand, `python -m fewbits.kernels.build`.

Imports nothing of fewbits, so that the installation can use it before fewbits is there. Each source in PORTABLE (C99)
and in SIMD is compiled once for every level of the processor's family, with that level's instructions.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
COMMON = ("level.cpp", "partition.cpp", "huffman.cpp", "count.cpp", "threads.cpp", "pack.cpp", "calls.cpp",
          "cpuid.cpp")
PORTABLE = tuple(f"portable/{name}.c" for name in (
    "requantize_float", "requantize_levels", "requantize_fixed", "requantize_row", "dot", "pair", "table", "pool",
    "softmax", "norm", "quantize", "move", "packed"))
SIMD = tuple(f"simd/{name}.cpp" for name in ("level_table", "product", "depthwise", "tiles", "winograd", "few_bits",
                                             "planes", "table", "levels", "pool"))
LIBRARY = HERE / {"win32": "fewbits_kernels.dll", "darwin": "libfewbits_kernels.dylib"}.get(
    sys.platform, "libfewbits_kernels.so")
FLAGS = ("-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall",
         "-Wextra", "-Wno-maybe-uninitialized", "-Wno-uninitialized")  # GCC 12's headers give hundreds, all false
"""No fused multiply-add but where it is written: every level, and NumPy, must round alike."""
CXX_FLAGS = ("-std=c++17", "-fno-exceptions", "-fno-rtti")
C_FLAGS = ("-x", "c", "-std=c99")
WITH_EXCEPTIONS = ("threads.cpp",)  # to go on with fewer threads where the system gives no more

_AVX2 = ("-DFB_SIMD", "-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mpopcnt")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni",
           "-mprefer-vector-width=512")
LEVELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "x86_64": {"avx2": _AVX2, "avxvnni": (*_AVX2, "-mavxvnni"),
               "avx512": _AVX512, "amx": (*_AVX512, "-mavx512vbmi", "-mamx-tile", "-mamx-int8")},
    "aarch64": {"neon": ("-march=armv8.2-a+dotprod",)},
}
"""Flags of each level beyond `portable`, by family of processors."""


@dataclass(frozen=True)
class _BuildError(Exception):
    why: str


def build(target: Path = LIBRARY, flags: Sequence[str] = ()) -> str:
    """Compiles into `target`; returns "" or, in one sentence, why there is no library. Never raises for a
    compiler that is missing or fails: everything works without, slower. CXX names another compiler; flags: further
    ones."""
    command = shlex.split(os.environ.get("CXX", "")) or next(
        ([found] for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), None)
    if command is None:
        return "no C++ compiler was found (g++, clang++ or $CXX)"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / target.name
        try:
            objects = compile_all(command, Path(folder), flags)
            _run([*command, *flags, "-shared", "-pthread", "-o", str(made), *map(str, objects)])
        except _BuildError as failed:
            return failed.why
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(made, beside)
            os.replace(beside, target)  # a process that has the old one loaded keeps it
        except OSError as error:
            return f"{target} could not be written ({error})"
    return ""


def compile_all(command: Sequence[str], folder: Path, flags: Sequence[str] = ()) -> list[Path]:
    """Object files of every source at every level, in `folder`."""
    machine = _run([*command, "-dumpmachine"]).strip()
    levels = next((LEVELS[family] for family in LEVELS if machine.startswith(family) or
                   (family == "aarch64" and machine.startswith("arm64"))), {})
    jobs: list[tuple[str, str, tuple[str, ...]]] = [(source, "", ()) for source in COMMON]
    for level, instructions in {"portable": (), **levels}.items():
        jobs += [(source, level, (f"-DFB_LEVEL={level}", *instructions)) for source in (*PORTABLE, *SIMD)]

    def compiled(job: tuple[str, str, tuple[str, ...]]) -> Path:
        source, level, more = job
        made = folder / f"{source.replace('/', '_')}_{level}.o"
        language = C_FLAGS if source.endswith(".c") else CXX_FLAGS
        if source in WITH_EXCEPTIONS:
            language = tuple(flag for flag in language if flag != "-fno-exceptions")
        _run([*command, *FLAGS, *language, *more, *flags, "-c", "-o", str(made), str(HERE / "native" / source)])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compiled, jobs))


def _run(command: list[str]) -> str:
    """What it prints; raises _BuildError with one sentence."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        raise _BuildError(f"{command[0]} could not be run ({error})") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise _BuildError(f"{command[0]} failed: {next((line for line in lines if 'error' in line), lines[-1])}")
    if done.stderr and __name__ == "__main__":
        print(done.stderr, file=sys.stderr)
    return done.stdout


if __name__ == "__main__":
    failure = build()
    print(f"fewbits: {failure}; the kernels run in NumPy, slower" if failure else f"fewbits: built {LIBRARY}")
    sys.exit(1 if failure else 0)

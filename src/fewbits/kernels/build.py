"""Compiles the native kernels: at installation (hatch_build.py), or by hand, `python -m fewbits.kernels.build`.

Imports nothing of fewbits, so that the installation can use it before fewbits is there.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("level.cpp", "partition.cpp", "huffman.cpp", "count.cpp")
LIBRARY = HERE / {"win32": "fewbits_kernels.dll", "darwin": "libfewbits_kernels.dylib"}.get(
    sys.platform, "libfewbits_kernels.so")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-fno-exceptions",
         "-Wall", "-Wextra")
"""No fused multiply-add: every level, and NumPy, must round alike."""


def build(target: Path = LIBRARY) -> str:
    """Compiles into `target`; returns "" or, in one sentence, why there is no library. Never raises for a
    compiler that is missing or fails: everything works without, slower. CXX names another compiler."""
    command = shlex.split(os.environ.get("CXX", "")) or next(
        ([found] for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), None)
    if command is None:
        return "no C++ compiler was found (g++, clang++ or $CXX)"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / target.name
        sources = [str(HERE / "native" / name) for name in SOURCES]
        try:
            done = subprocess.run([*command, *FLAGS, "-o", str(made), *sources], capture_output=True, text=True,
                                  timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{command[0]} could not be run ({error})"
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            return f"{command[0]} failed: {next((line for line in lines if 'error' in line), lines[-1])}"
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(made, beside)
            os.replace(beside, target)  # a process that has the old one loaded keeps it
        except OSError as error:
            return f"{target} could not be written ({error})"
    return ""


if __name__ == "__main__":
    failure = build()
    print(f"fewbits: {failure}; the kernels run in NumPy, slower" if failure else f"fewbits: built {LIBRARY}")
    sys.exit(1 if failure else 0)

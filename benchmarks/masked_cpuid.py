"""`python -m benchmarks.masked_cpuid [--kind avx2] COMMAND …`: runs the command, and all that it starts, as on a
machine with AVX2 and without VNNI; `--kind avx512`: with AVX-512, without VNNI.

The processor's own speed: only CPUID answers less (masked_cpuid.c), so ONNX Runtime, torch, NumPy and our kernels take
the code that they have for such processors. Linux on x86-64, a C compiler, and a processor and virtual machine that let
CPUID fault (`cpuid_fault` in /proc/cpuinfo: Intel's since 2012); else one sentence and exit code 2. What does not look
at LD_PRELOAD (a static program, an environment made anew) sees the processor as it is.
"""

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
KINDS = ("avx2", "avx512")


def masked(kind: str, folder: Path) -> dict[str, str]:
    """What the environment must hold for a process to be masked. folder: where the compiled source is kept.

    Raises SystemExit, saying why, where it cannot be compiled.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        sys.exit(f"CPUID is masked on Linux on x86-64 only, not on {sys.platform} on {platform.machine()}")
    folder.mkdir(parents=True, exist_ok=True)
    made, library = folder / f"masked_cpuid.{os.getpid()}", (folder / "masked_cpuid.so").resolve()
    command = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(made),
               str(SOURCE), "-ldl"]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"masked_cpuid.c was not compiled ({error}): a C compiler is needed, CC names it")
    made.replace(library)  # at once: others may have it loaded
    return {"FEWBITS_CPUID": kind, "LD_PRELOAD": str(library)}


def main() -> None:
    """Becomes the command; exit code 2 where nothing can be masked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="avx2")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    if not chosen.command:
        parser.error("name the command that is run")
    os.execvpe(chosen.command[0], chosen.command, os.environ | masked(chosen.kind, Path("build")))


if __name__ == "__main__":
    main()

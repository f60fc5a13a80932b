"""`python -m benchmarks.fuzz_kernels`: random calls of the native kernels beside NumPy, and calls that
must be refused, for as long as it is told.

--sanitize compiles the library anew with AddressSanitizer and UndefinedBehaviorSanitizer and runs in a process that has
them: a byte read or written outside an array, a shift or a sum that C does not define, ends it. Where no compiler is
there, or none with sanitizers, it says so and is done.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fewbits.errors import KernelError
from fewbits.kernels import library
from fewbits.kernels.build import build
from fewbits.testing.kernel_calls import FAMILIES
from fewbits.testing.kernel_refusals import spoiled

_FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g", "-O1")


def main(seconds: Annotated[float, typer.Option(help="how long")] = 60, first: Annotated[int,
                                                                                         typer.Option(help="seed")] = 0,
         sanitize: Annotated[bool, typer.Option(help="with sanitizers, on a library made for it")] = False) -> None:
    """Every family in turns, at every level of this processor, with 1 to 4 threads; stops at the first difference."""
    if sanitize:
        sys.exit(_sanitized(seconds, first))
    if len(library.levels()) < 2:
        sys.exit("no native library: python -m fewbits.kernels.build")
    end, seed, compared = time.monotonic() + seconds, first, 0
    while time.monotonic() < end:
        for name, family in FAMILIES.items():
            rng = np.random.default_rng([seed, *name.encode()])
            case = family(rng)
            accepted = [what for what, answer in spoiled(case) if answer >= 0]
            if accepted:
                sys.exit(f"seed {seed}, {name}: the library accepts {accepted[0]}")
            for level in library.levels()[1:]:
                threads = int(rng.integers(1, 5))
                with library.use(level):
                    try:
                        found = case.run(threads)
                    except KernelError as error:
                        sys.exit(f"seed {seed}, {name} at {level}: {error}: {case.what}")
                differing = int((found != case.wanted).sum() - (np.isnan(found) & np.isnan(case.wanted)).sum())
                if differing:
                    sys.exit(f"seed {seed}, {name} at {level}, {threads} threads: "
                             f"{differing} of {found.size} differ: {case.what}")
                compared += found.size
        seed += 1
    print(f"seeds {first} to {seed - 1}, {len(FAMILIES)} families, levels {', '.join(library.levels()[1:])}: "
          f"0 of {compared} numbers differ")


def _sanitized(seconds: float, first: int) -> int:
    """The same in a process with sanitizers; its exit code."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        print(f"no {compiler}: the native kernels are not run under sanitizers")
        return 0
    runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True,
                             check=True).stdout.strip()
    if not Path(runtime).is_file():
        print(f"{compiler} has no libasan.so: the native kernels are not run under sanitizers")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "library.so"
        failure = build(target, _FLAGS)
        if failure:
            print(failure)
            return 1
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.fuzz_kernels", "--seconds", str(seconds), "--first", str(first)],
            env={**os.environ, "FEWBITS_LIBRARY": str(target), "LD_PRELOAD": runtime,
                 "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}).returncode


if __name__ == "__main__":
    typer.run(main)

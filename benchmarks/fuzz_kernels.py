"""`python -m benchmarks.fuzz_kernels`: random calls of the native kernels beside NumPy, and calls that
must be refused, for as long as it is told.

--sanitize compiles the library anew and runs in a process with sanitizers: `memory` with AddressSanitizer and
UndefinedBehaviorSanitizer, so that a byte read or written outside an array, a shift or a sum that C does not define,
ends it; `threads` with ThreadSanitizer, so that a value which one thread writes while another reads it does. Where no
compiler is there, or none with sanitizers, it says so and is done.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fewbits.errors import KernelError
from fewbits.kernels import library
from fewbits.kernels.build import build
from fewbits.testing.kernel_calls import FAMILIES
from fewbits.testing.kernel_refusals import spoiled

_COMMON = ("-fno-omit-frame-pointer", "-g", "-O1")


class Sanitized(Enum):
    """What is looked for."""

    memory = "memory"
    threads = "threads"


@dataclass(frozen=True)
class _Sanitizer:
    """runtime: the library that a process begins with; settings: of it."""

    flags: tuple[str, ...]
    runtime: str
    settings: Mapping[str, str]


_SANITIZERS: Mapping[Sanitized, _Sanitizer] = {
    Sanitized.memory: _Sanitizer(
        ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", *_COMMON), "libasan.so",
        {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}),
    # Python's own locks are not known to it: only what this library does is watched.
    Sanitized.threads: _Sanitizer(("-fsanitize=thread", *_COMMON), "libtsan.so", {
        "TSAN_OPTIONS": "halt_on_error=1 ignore_noninstrumented_modules=1"}),
}


def main(seconds: Annotated[float, typer.Option(help="how long")] = 60, first: Annotated[int,
                                                                                         typer.Option(help="seed")] = 0,
         sanitize: Annotated[Sanitized | None, typer.Option(help="with sanitizers, on a library made for it")] = None,
         ) -> None:
    """Every family in turns, at every level of this processor, with 1 to 32 threads; stops at the first difference."""
    if sanitize is not None:
        sys.exit(_sanitized(_SANITIZERS[sanitize], seconds, first))
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
                threads = int(rng.choice([1, 2, 3, 4, 7, 32]))
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


def _sanitized(sanitizer: _Sanitizer, seconds: float, first: int) -> int:
    """The same in a process with sanitizers; its exit code."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        print(f"no {compiler}: the native kernels are not run under sanitizers")
        return 0
    runtime = subprocess.run([compiler, f"-print-file-name={sanitizer.runtime}"], capture_output=True, text=True,
                             check=True).stdout.strip()
    if not Path(runtime).is_file():
        print(f"{compiler} has no {sanitizer.runtime}: the native kernels are not run under sanitizers")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "library.so"
        failure = build(target, sanitizer.flags)
        if failure:
            print(failure)
            return 1
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.fuzz_kernels", "--seconds", str(seconds), "--first", str(first)],
            env={**os.environ, **sanitizer.settings, "FEWBITS_LIBRARY": str(target), "LD_PRELOAD": runtime}).returncode


if __name__ == "__main__":
    typer.run(main)

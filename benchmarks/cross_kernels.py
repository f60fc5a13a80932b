"""`python -m benchmarks.cross_kernels`: the native kernels of ARM, compiled by a cross compiler and run by qemu.

Random calls are run here and there, at every level of both processors; the digest of all that they write must be one.
Needs `g++-aarch64-linux-gnu` and `qemu-user` (Debian).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fewbits.kernels.build import CXX_FLAGS, FLAGS, HERE, compile_all

_ARM = ("aarch64-linux-gnu-g++", "qemu-aarch64")


def main(cases: Annotated[int, typer.Option(help="of every family")] = 200) -> None:
    """Prints a digest for every level; exit code 1 where two differ."""
    missing = [name for name in _ARM if shutil.which(name) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} are not here: apt install g++-aarch64-linux-gnu qemu-user")
    digests = set()
    for compiler, runner in ((os.environ.get("CXX", "g++"), ()), (_ARM[0], (_ARM[1],))):
        with tempfile.TemporaryDirectory() as folder:
            objects = compile_all([compiler], Path(folder))
            made = Path(folder) / "main"
            subprocess.run([compiler, *FLAGS, *CXX_FLAGS, "-static", "-pthread", f"-I{HERE / 'native'}", "-o",
                            str(made),
                            str(Path(__file__).with_suffix(".cpp")), *map(str, objects)], check=True)
            done = subprocess.run([*runner, str(made), str(cases)], capture_output=True, text=True)
        print(f"{compiler}:\n{done.stdout}{done.stderr}", end="")
        digests |= {line.split()[-1] for line in done.stdout.splitlines()} or {"nothing"}
    sys.exit(len(digests) != 1)


if __name__ == "__main__":
    typer.run(main)

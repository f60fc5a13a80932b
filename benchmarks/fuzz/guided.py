"""Every reader under libFuzzer, which looks for inputs that reach lines of fewbits not reached before:
`python -m benchmarks.fuzz.guided --seconds 30` (of each reader; `pip install fewbits[fuzz]` brings atheris).

Beside ours (`benchmarks.fuzz`), which spoils by what we know of the forms: this one learns from the code which inputs
are worth changing further, by libFuzzer's mutations and by ours on top of each other. What ends otherwise than in a
FewbitsError, or takes over the limits of memory and time, is a finding; its bytes are kept in `--findings`.
"""

import random
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

try:
    guided: Any = import_module("atheris")
except ImportError:
    sys.exit("atheris is not installed: `pip install fewbits[fuzz]`")

if "--within" in sys.argv:  # branches are counted in the process that reads
    with guided.instrument_imports(include=["fewbits"], enable_loader_override=False):
        import_module("benchmarks.fuzz.readers")

from benchmarks.fuzz.readers import READERS, Reader
from fewbits.errors import FewbitsError

MEGABYTES = 4096  # of the process, torch and the sound files with it
SECONDS = 20  # of one input, its coverage counted meanwhile
LONGEST = 1 << 17  # bytes of an input


def main(
    seconds: Annotated[int, typer.Option(help="Of the clock, for each reader")] = 30,
    reader: Annotated[str | None, typer.Option(help="Only this one")] = None,
    seed: Annotated[int, typer.Option(help="Of libFuzzer")] = 1,
    findings: Annotated[Path, typer.Option(help="Folder for inputs that are findings")] = Path("build/fuzz-guided"),
    within: Annotated[bool, typer.Option("--within", hidden=True)] = False,
) -> None:
    if within:
        _fuzz(READERS[reader or ""], seconds, seed, findings)
    findings.mkdir(parents=True, exist_ok=True)
    inputs = found = 0
    for name in READERS if reader is None else (reader,):
        command = [sys.executable, "-m", "benchmarks.fuzz.guided", "--within", "--reader", name, "--seconds",
                   str(seconds), "--seed", str(seed), "--findings", str(findings)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        told = done.stderr + done.stdout
        told = "".join(line for line in told.splitlines(keepends=True) if not line.startswith("INFO: Instrumenting"))
        reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", told)
        count = int(re.findall(r"number_of_executed_units: (\d+)", told)[-1]) if "executed_units" in told else 0
        inputs, found = inputs + count, found + (done.returncode != 0)
        begun, ended = (reached[0], reached[-1]) if reached else (("0", "0", "0"),) * 2
        print(f"{name}: {count} inputs, {begun[0]} branches at first and {ended[0]} at the end, {ended[2]} inputs kept")
        if done.returncode:
            print("    " + "\n    ".join(told.splitlines()[-30:]))
        sys.stdout.flush()
    print(f"{inputs} inputs in all, {found} findings")


def _fuzz(reader: Reader, seconds: int, seed: int, findings: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    folder = Path(tempfile.mkdtemp(prefix="guided", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    path, corpus, good = folder / "file", folder / "corpus", reader.good()
    corpus.mkdir()
    (corpus / "good").write_bytes(good)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            reader.read(path)
        except FewbitsError as error:
            if "\n" in str(error) or len(str(error)) > 1500:
                raise RuntimeError(f"not one sentence: {str(error)[:300]}") from error

    def changed(data: bytes, limit: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.5:
            return guided.Mutate(data, limit)
        try:
            ours = reader.spoilt(data, chance)[0]  # on top of what was changed before
        except Exception:  # it is no file of this form any more, and `spoilt` takes sound ones
            ours = reader.spoilt(good, chance)[0]
        return ours[:limit]

    options = (f"-max_total_time={seconds}", f"-seed={seed}", f"-rss_limit_mb={MEGABYTES}", f"-timeout={SECONDS}",
               f"-max_len={LONGEST}", f"-artifact_prefix={findings.resolve()}/{reader.name.replace(' ', '-')}-",
               "-print_final_stats=1", str(corpus))
    guided.Setup([sys.argv[0], *options], read, custom_mutator=changed)
    guided.Fuzz()


if __name__ == "__main__":
    typer.run(main)

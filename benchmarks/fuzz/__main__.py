"""Spoilt files through every reader: `python -m benchmarks.fuzz --each 20000 --total 1000000`, or of one reader alone.

Each input is made from its reader's name and a number, so that `--reader NAME --only NUMBER` makes it again. It is
read in a process under limits of memory and time; one that dies is begun again behind the input that killed it. What
must come out: a FewbitsError, or the file taken for what it says. Counts, seconds of the processor and findings go into
`--state`, and a second run goes on from there.
"""

import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.fuzz.readers import READERS, Reader
from fewbits.errors import FewbitsError
from fewbits.files import write_whole

MEMORY = 2**30  # bytes of address space that reading may take beyond what the process has
SECONDS = 5.0  # of the processor, that reading one file may take
HANGS = 60  # seconds of the clock, after which the process is ended
_CHUNK = 2500
_KEPT = 40  # findings of a reader
_OUR_FAULT = 99  # exit code of a child


def main(
    each: Annotated[int, typer.Option(help="Inputs for every reader, those of earlier runs counted")] = 20_000,
    reader: Annotated[str | None, typer.Option(help="Only this one")] = None,
    total: Annotated[int, typer.Option(help="Inputs in all: then those readers go on that took the least time")] = 0,
    seconds: Annotated[float, typer.Option(help="Of the clock, for all of it; what is left is for the next run")] = 1e9,
    state: Annotated[Path, typer.Option(help="Where counts and findings are kept")] = Path("build/fuzz.json"),
    only: Annotated[int | None, typer.Option(help="With --reader: this input alone, its traceback shown")] = None,
) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if only is not None:
        _again(READERS[reader or ""], only)
        return
    kept: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {}
    chosen = list(READERS) if reader is None else [reader]
    good: dict[str, bytes] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left = [name for name in chosen if kept.get(name, {}).get("inputs", 0) < each]
        if left:
            name = min(left, key=lambda one: kept.get(one, {}).get("inputs", 0))
        elif sum(kept[one]["inputs"] for one in chosen) < total:
            name = min(chosen, key=lambda one: kept[one]["seconds"])
        else:
            break
        record = kept.setdefault(
            name,
            {"inputs": 0, "refused": 0, "taken": 0, "seconds": 0.0, "longest": 0.0, "megabytes": 0, "findings": []},
        )
        if name not in good:  # what it is made of is made here once, and not in every child
            good[name] = READERS[name].good()
            READERS[name].spoilt(good[name], random.Random(0))
        _chunk(READERS[name], good[name], record, min(_CHUNK, each - record["inputs"] if left else _CHUNK))
        state.parent.mkdir(parents=True, exist_ok=True)
        write_whole(state, json.dumps(kept, indent=1).encode())
    total = sum(record["inputs"] for record in kept.values())
    for name, record in kept.items():
        print(
            f"{name}: {record['inputs']} inputs, {record['refused']} refused, {record['taken']} taken, "
            f"{len(record['findings'])} findings; {record['seconds']:.0f} s, longest {1e3 * record['longest']:.0f} ms, "
            f"at most {record['megabytes']} MB more"
        )
        for finding in record["findings"][:5]:
            print(f"    {finding}")
    print(f"{total} inputs in all, {sum(len(record['findings']) for record in kept.values())} findings")


def _chunk(reader: Reader, good: bytes, record: dict[str, Any], count: int) -> None:
    """Runs inputs from record["inputs"] on in a child; what it tells comes through shared memory, so that nothing is
    lost where it dies."""
    first = record["inputs"]
    told = mmap.mmap(-1, 64 + 4096)
    kept = os.dup(2)  # the child closes its own
    child = os.fork()
    if child == 0:
        code = _OUR_FAULT
        try:
            _work(reader, good, first, count, told)
            code = 0
        except BaseException:
            os.write(kept, traceback.format_exc().encode())
        finally:
            os._exit(code)
    _, status, _ = os.wait4(child, 0)
    os.close(kept)
    if os.waitstatus_to_exitcode(status) == _OUR_FAULT:
        raise SystemExit(f"{reader.name}: the fuzzer itself failed at input {struct.unpack('<q', told[:8])[0]}")
    at, refused, taken, spent, longest, megabytes, finding = struct.unpack("<qqqddqq", told[:56])
    record["inputs"] = at
    record["refused"] += refused
    record["taken"] += taken
    record["seconds"] = round(record["seconds"] + spent, 3)
    record["longest"] = max(record["longest"], round(longest, 4))
    record["megabytes"] = max(record["megabytes"], megabytes)
    if finding:
        _note(record, json.loads(told[64 : 64 + finding].decode()))
    elif status:
        name = signal.Signals(status & 127).name if status & 127 else f"exit {status >> 8}"
        _note(record, {"input": at, "what": "died", "text": name})
        record["inputs"] = at + 1


def _note(record: dict[str, Any], finding: dict[str, Any]) -> None:
    record["findings"] = [*record["findings"], finding][:_KEPT]


def _work(reader: Reader, good: bytes, first: int, count: int, told: mmap.mmap) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    folder = Path(tempfile.mkdtemp(prefix="fuzz", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        path = folder / "file"
        path.write_bytes(good)
        right = reader.read(path) if reader.signed else None
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        begun = _peak()
        refused = taken = 0
        spent = longest = 0.0

        def tell(at: int, finding: dict[str, Any] | None = None) -> None:
            text = b"" if finding is None else json.dumps(finding).encode()[:4000]
            told[64 : 64 + len(text)] = text
            told[:56] = struct.pack("<qqqddqq", at, refused, taken, spent, longest, (_peak() - begun) >> 20, len(text))

        for number in range(first, first + count):
            tell(number)
            data, intact = reader.spoilt(good, _chance(reader, number))
            path.write_bytes(data)
            signal.alarm(HANGS)
            before = time.process_time()
            finding = None
            try:
                found = reader.read(path)
                taken += 1
                if reader.signed and not intact and found != right:
                    finding = {"input": number, "what": "damage taken", "text": str(found)[:200]}
            except FewbitsError as error:
                refused += 1
                if "\n" in str(error) or len(str(error)) > 1500:
                    finding = {"input": number, "what": "message", "text": str(error)[:300]}
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                finding = {
                    "input": number,
                    "what": type(error).__name__,
                    "text": f"{str(error)[:200]} at {last.filename.split('/')[-1]}:{last.lineno}",
                }
            signal.alarm(0)
            took = time.process_time() - before
            spent, longest = spent + took, max(longest, took)
            if finding is None and took > SECONDS:
                finding = {"input": number, "what": "slow", "text": f"{took:.1f} s"}
            if finding is not None:
                tell(number + 1, finding)
                return
        tell(first + count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _chance(reader: Reader, number: int) -> random.Random:
    return random.Random(f"{reader.name} {number}")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _again(reader: Reader, number: int) -> None:
    data, intact = reader.spoilt(reader.good(), _chance(reader, number))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        print(f"{len(data)} bytes, checksums {'right' if intact else 'not made right'}: {data[:200]!r}")
        print(reader.read(path))


if __name__ == "__main__":
    typer.run(main)

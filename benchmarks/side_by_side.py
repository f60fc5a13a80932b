"""`python -m benchmarks.side_by_side`, `make bench`: whole networks, and linear layers of few bits, in our kernels and
in others, side by side.

All candidates of a row run in turns in one process, so that a change of clock and other work meet all; a turn is one
call that does not count and then as many as take about two milliseconds. Figures are medians over the turns, of
processor time on one thread and of wall time on more. Ratios are within a row: over ONNX Runtime in float32 for
networks, over torch in float32 for layers. Before a network is timed, the codes of our kernels are compared with the
torch executor's.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.native_kernels import few_bits, weight_only_peer
from benchmarks.networks import Network, names, network
from fewbits.engines.engine import Engine
from fewbits.engines.executable import Executable
from fewbits.engines.executors import Native
from fewbits.engines.native.executor import NativeExecutor
from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.onnxruntime import OnnxRuntime
from fewbits.engines.openvino import OpenVino
from fewbits.engines.openvino_session import OpenVinoSession, openvino_missing
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.files import write_whole
from fewbits.kernels import library
from fewbits.plots import Axis, Picture, bars
from fewbits.program.program import Program
from fewbits.report.machine import this_machine
from fewbits.writers.onnx.twin import float_onnx_bytes

Call = Callable[[], object]
FLOAT, LAYER_FLOAT = "onnxruntime fp32", "torch fp32"
READ = "reading 4 bits a weight and a scale for 128"
_TURN = 2e6  # nanoseconds
_HEAD = """# Benchmarks

Made by `make bench` (`python -m benchmarks.side_by_side --docs`, which writes the section of the machine that it runs
on): all candidates of a row in turns in one process, random weights. All figures but those in ms are ratios within a
row. `native` is the call of our engine on arrays, by the level of its kernels, `prog(x)` what users call; *exact
anywhere* is the file that fewbits exports by default.
"""
_SHOWN = ("torch fp32", "onnxruntime int8", "openvino int8")  # in the picture, beside ours


@dataclass(frozen=True)
class Row:
    """times: microseconds of a call, by candidate; notes: what else was seen."""

    name: str
    times: Mapping[str, float]
    notes: Mapping[str, float | int | str]

    def ratio(self, candidate: str, over: str) -> float:
        """How many times as fast as another."""
        return self.times[over] / self.times[candidate]


@dataclass(frozen=True)
class Run:
    """One run. load: of the machine before and after, as `uptime` says it: above 1 others worked beside."""

    machine: str
    threads: int
    batch: int
    recipe: str
    load: tuple[float, float]
    networks: tuple[Row, ...]
    layers: tuple[Row, ...]


def in_turns(calls: Mapping[str, Call], levels: Mapping[str, library.Level], turns: int,
             threads: int) -> dict[str, float]:
    """Microseconds of a call of each. levels: of the kernels, where it is not the one in use: changed around a turn, as
    that takes longer than a small network."""
    clock = time.process_time_ns if threads == 1 else time.perf_counter_ns
    often: dict[str, int] = {}
    for name, call in calls.items():
        with library.use(levels.get(name, library.level())):
            call()
            begun = clock()
            call()
            often[name] = max(1, min(1000, int(_TURN / max(clock() - begun, 1))))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            with library.use(levels.get(name, library.level())):
                call()
                begun = clock()
                for _ in range(often[name]):
                    call()
                taken[name].append((clock() - begun) / often[name] / 1e3)
    return {name: median(some) for name, some in taken.items()}


def network_row(name: str, made: Network, program: Program, batch: int, levels: Sequence[library.Level], turns: int,
                threads: int) -> Row:
    """A network's figures. Raises AssertionError where a code differs."""
    x = made.x[:batch]
    array = x.numpy()
    inputs = {program.inputs[0]: array}
    calls: dict[str, Call] = {}

    def eager() -> None:
        with torch.no_grad():
            made.net(x)

    def engine(chosen: Engine) -> Call:
        prepared = chosen.prepare(program)
        return lambda: prepared.numbers(inputs)

    calls["torch fp32"] = eager
    real = OnnxSession(float_onnx_bytes(program), "all", threads)
    calls[FLOAT] = lambda: real._session.run(None, inputs)  # as its users call it
    calls["onnxruntime int8"] = engine(OnnxRuntime(threads=threads, processor="vnni"))
    calls["onnxruntime int8, exact anywhere"] = engine(OnnxRuntime(threads=threads, processor="any"))
    if not openvino_missing():
        whole = OpenVinoSession(float_onnx_bytes(program), threads=threads)
        calls["openvino fp32"] = lambda: whole.run(inputs)
        calls["openvino int8"] = engine(OpenVino(threads=threads))
    wanted = TorchExecutor(program).run(inputs)
    notes: dict[str, float | int | str] = {}
    for level in levels:
        with library.use(level):
            executor = NativeExecutor(program, threads)
            begun = time.process_time()
            found = executor.run(inputs)
            notes["compile ms"] = round(1000 * (time.process_time() - begun), 1)
            for key, codes in wanted.items():
                assert program.is_float(key) or np.array_equal(codes, found[key]), f"{name}, {key} at {level}"
        calls[f"native {level}"] = lambda executor=executor: executor.real(inputs)
        notes |= {"nodes in torch": len(executor.fallbacks(inputs)),
                  "arena bytes": executor.arena(inputs).size, "most bytes at once": executor.arena(inputs).needed}
    model = Executable(program, Native(threads))
    calls["prog(x)"] = lambda: model(array)
    return Row(name, in_turns(calls, {**_named(levels), "prog(x)": levels[-1]}, turns, threads), notes)


def layer_rows(levels: Sequence[library.Level], turns: int, size: int, rows: int) -> list[Row]:
    """Linear layers by kinds of weights, on one thread."""
    linear = torch.nn.Linear(size, size, bias=False).requires_grad_(False)
    x = torch.randn(rows, size)
    peer, found = weight_only_peer(size, size, rows), []
    held = np.zeros(size * size // 2 + 4 * size * size // 128, np.uint8).view(np.uint64)
    for name, make in few_bits(size, size, rows):
        calls: dict[str, Call] = {LAYER_FLOAT: lambda: linear(x), "MatMulNBits 4 bits": peer}
        if rows == 1:
            calls[READ] = lambda: np.bitwise_or.reduce(held)
        for level in levels:
            with library.use(level):
                calls[f"native {level}"] = make().run
        found.append(Row(f"{name}, {rows}×{size}→{size}", in_turns(calls, _named(levels), turns, 1), {}))
    return found


def _named(levels: Sequence[library.Level]) -> dict[str, library.Level]:
    return {f"native {level}": level for level in levels}


# ------------------------------------------------------------------------------------------------------ as pictures


def table(rows: Sequence[Row], over: str, title: str) -> Table:
    """For a terminal."""
    columns = list(dict.fromkeys(name for row in rows for name in row.times if name != over))
    made = Table("", f"{over}, ms", *columns, title=f"{title}: times as fast as {over}")
    for row in rows:
        made.add_row(row.name, f"{row.times[over] / 1e3:.3f}",
                     *(f"{row.ratio(name, over):.2f}" if name in row.times else "" for name in columns))
    return made


def markdown(run: Run, drawn: str) -> str:
    """A machine's section of the page for docs/. drawn: the file of its picture."""
    clock = "processor time" if run.threads == 1 else "wall time"
    parts = [f"## {run.machine}\n\nMedians of {clock}, {run.threads} thread{'s' if run.threads > 1 else ''}, batch "
             f"{run.batch}, recipe `{run.recipe}`. Load before and after: {run.load[0]:.1f}, {run.load[1]:.1f}; above "
             f"1 others worked beside.\n\n![times ONNX Runtime fp32]({drawn})\n"]
    for rows, over, title in ((run.networks, FLOAT, "Networks"),
                              (run.layers, LAYER_FLOAT, "Linear layers of few bits")):
        if rows:
            columns = list(dict.fromkeys(name for row in rows for name in row.times if name != over))
            parts.append(f"\n### {title}: times as fast as {over}\n\n| | {over}, ms | {' | '.join(columns)} |\n"
                         f"|{'---|' * (len(columns) + 2)}\n")
            for row in rows:
                cells = [f"{row.ratio(name, over):.2f}" if name in row.times else "" for name in columns]
                parts.append(f"| {row.name} | {row.times[over] / 1e3:.3f} | {' | '.join(cells)} |\n")
    noted = [row for row in run.networks if row.notes]
    if noted:
        heads = list(noted[0].notes)
        parts.append(f"\n### Of our engine\n\n| | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}\n")
        parts += [f"| {row.name} | {' | '.join(str(row.notes.get(head, '')) for head in heads)} |\n" for row in noted]
    return "".join(parts)


def with_section(text: str, section: str) -> str:
    """The page with a machine's section, in place of the one that bears its processor's name, or behind the others."""
    head, *others = text.split("\n## ") if text else [_HEAD.rstrip("\n")]
    name = _processor(section.removeprefix("## "))
    kept = [other.rstrip("\n") for other in others if _processor(other) != name]
    return "\n\n## ".join([head.rstrip("\n"), *kept, section.removeprefix("## ").rstrip("\n")]) + "\n"


def _processor(section: str) -> str:
    """Of a section, the processor and what it can do: a machine's description up to its versions."""
    return section.splitlines()[0].split(";")[0]


def write_docs(run: Run, level: library.Level, folder: Path = Path("docs")) -> None:
    """The machine's section of docs/benchmarks.md, and its picture, named by the best level."""
    target, drawn = folder / "benchmarks.md", f"benchmarks-{level}.svg"
    text = target.read_text() if target.is_file() else ""
    write_whole(target, with_section(text, markdown(run, drawn)).encode())
    picture(run).save(folder / drawn)


def picture(run: Run) -> Picture:
    """Networks, our best level and what is run instead of it."""
    ours = [name for name in run.networks[0].times if name.startswith("native ")][-1:]
    shown = [name for name in (*_SHOWN, *ours) if all(name in row.times for row in run.networks)]
    return bars(f"times as fast as {FLOAT}, batch {run.batch}", Axis("times"), [row.name for row in run.networks],
                [(name, [row.ratio(name, FLOAT) for row in run.networks]) for name in shown])


def page(run: Run) -> str:
    """One document without a script."""
    def rows(items: Sequence[Row], over: str) -> str:
        columns = list(dict.fromkeys(name for row in items for name in row.times if name != over))
        head = "".join(f"<th>{escape(name)}</th>" for name in ("", f"{over}, ms", *columns))
        body = "".join(
            f"<tr><td>{escape(row.name)}</td><td>{row.times[over] / 1e3:.3f}</td>" + "".join(
                f"<td>{row.ratio(name, over):.2f}</td>" if name in row.times else "<td></td>" for name in columns)
            + "</tr>" for row in items)
        return f"<h2>Times as fast as {escape(over)}</h2><table><tr>{head}</tr>{body}</table>" if items else ""

    told = f"{run.machine}; {run.threads} threads, load {run.load[0]:.1f} and {run.load[1]:.1f}"
    drawn = picture(run).svg if run.networks else ""
    return ("<!doctype html><meta charset='utf-8'><title>fewbits: side by side</title><style>body{font:15px sans-serif;"
            "max-width:70em;margin:2em auto}td,th{padding:.2em .7em;text-align:right}td:first-child{text-align:left}"
            f"</style><h1>Side by side</h1><p>{escape(told)}</p>{drawn}{rows(run.networks, FLOAT)}"
            f"{rows(run.layers, LAYER_FLOAT)}\n")


def main(only: Annotated[str, typer.Option(help="Networks, with commas; none for no network")] = "",
         recipe: Annotated[str, typer.Option()] = "w8a8",
         batch: Annotated[int, typer.Option(help="Inputs at once")] = 1,
         threads: Annotated[int, typer.Option(help="Of every engine")] = 1,
         turns: Annotated[int, typer.Option(help="Of each candidate")] = 11,
         level: Annotated[str, typer.Option(help="Kernel levels, with commas; the one in use where left out")] = "",
         layers: Annotated[bool, typer.Option(help="Linear layers of few bits, too")] = True,
         out: Annotated[Path, typer.Option(help="Folder for bench.json, bench.html, bench.svg")] = Path("build/bench"),
         docs: Annotated[bool, typer.Option("--docs", help="Write docs/benchmarks.md and its picture")] = False,
         ) -> None:
    """Prints tables, and writes them as JSON and as a page."""
    torch.set_num_threads(threads)
    wanted: list[library.Level] = [library.level()]
    if level:
        wanted = [each for each in library.levels() if each in level.split(",")]
    console, before = Console(width=200), os.getloadavg()[0]
    chosen = () if only == "none" else tuple(only.split(",")) if only else names()
    found = []
    for name in chosen:
        made = network(name, batch)
        found.append(network_row(name, made, made.program(recipe), batch, wanted, turns, threads))
        console.print(f"{name}: {found[-1].ratio(f'native {wanted[-1]}', FLOAT):.2f}", highlight=False)
    sizes = ((1, 4096), (32, 1024)) if layers else ()
    few = [row for rows, size in sizes for row in layer_rows(wanted, turns, size, rows)]
    run = Run(str(this_machine()), threads, batch, recipe, (before, os.getloadavg()[0]), tuple(found), tuple(few))
    for rows, over, title in ((run.networks, FLOAT, f"{recipe}, batch {batch}"),
                              (run.layers, LAYER_FLOAT, "few bits")):
        if rows:
            console.print(table(rows, over, title))
    console.print(f"{run.machine}; load {before:.1f} and {run.load[1]:.1f}", highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "bench.json", (json.dumps(asdict(run), indent=1) + "\n").encode())
    write_whole(out / "bench.html", page(run).encode())
    if run.networks:
        picture(run).save(out / "bench.svg")
    console.print(f"written: {out}/bench.json, bench.html", highlight=False)
    if docs:
        write_docs(run, wanted[-1])


if __name__ == "__main__":
    typer.run(main)

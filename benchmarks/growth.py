"""How each verb's time grows with depth: `python -m benchmarks.growth [depths] [--verbs fold,plan]`.

Stacks of conv-BN-ReLU layers of 2 channels on images of 4×4, so that a layer's numbers cost nothing and the bookkeeping
around it everything. Processor time of this process in seconds, the least of a few runs; the last column is the growth
between the last two depths over the growth of the depth: 1 is linear, 4 from 200 to 800 layers is quadratic. What is
not ours stands apart: torch.export inside capture, ONNX Runtime's sessions, their start and their runs, inside export
and report.
Python's garbage collector walks what a verb makes, and not what torch and earlier verbs left in memory (`gc.freeze`).
"""

import argparse
import copy
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import fewbits as fb
from fewbits.artifact.verify import verify
from fewbits.capture import capture as capturing
from fewbits.optimize.adaround import Schedule

DEPTHS = (50, 200, 800)
_BATCH, _CHANNELS, _SIDE = 4, 2, 4
_LONG = 20.0  # seconds: what takes so long is run once


def stack(depth: int) -> nn.Module:
    """conv-BN-ReLU, `depth` times, and a classifier; each layer nearly the identity, so that all are alive."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        conv = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, bias=False)
        nn.init.dirac_(conv.weight)
        conv.weight.data += 0.01 * torch.randn_like(conv.weight)
        layers += [conv, nn.BatchNorm2d(_CHANNELS), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_CHANNELS, 3)).eval()


@dataclass
class Aside:
    """Processor time spent in something of others', and how often."""

    seconds: float = 0.0
    count: int = 0


@contextmanager
def watched(owner: Any, name: str) -> Iterator[Aside]:
    """Counts and times a function while it is called under its owner's name."""
    aside, original = Aside(), getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = time.process_time()
        try:
            return original(*args, **kwargs)
        finally:
            aside.seconds += time.process_time() - begun
            aside.count += 1

    setattr(owner, name, timed)
    try:
        yield aside
    finally:
        setattr(owner, name, original)


@dataclass
class Growth:
    """One depth. seconds: by verb, processor time without what is `apart`; apart, calls: of others', by what it is."""

    depth: int
    folder: Path
    wanted: frozenset[str]
    repeats: int
    seconds: dict[str, float] = field(default_factory=dict)
    apart: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def verb(self, name: str, work: Callable[[Any], Any], given: Callable[[], Any] = lambda: None,
             others: Mapping[str, Aside] | None = None) -> None:
        """Times a verb. given: makes what it may spoil; others: what counts apart, reset before each run."""
        if self.wanted and name not in self.wanted:
            return
        for _ in range(self.repeats):
            for aside in (others or {}).values():
                aside.seconds, aside.count = 0.0, 0
            spoiled = given()
            gc.collect()
            gc.freeze()
            begun = time.process_time()
            work(spoiled)
            spent = time.process_time() - begun
            gc.unfreeze()
            own = spent - sum(aside.seconds for aside in (others or {}).values())
            if own < self.seconds.get(name, float("inf")):
                self.seconds[name] = own
                for what, aside in (others or {}).items():
                    self.apart[f"{name}: {what}"], self.calls[f"{name}: {what}"] = aside.seconds, aside.count
            if spent > _LONG:
                return

    def run(self) -> None:
        """All verbs, one after the other on one stack."""
        net, x = stack(self.depth), torch.rand(_BATCH, _CHANNELS, _SIDE, _SIDE)
        with watched(capturing, "follow") as exporter:
            self.verb("capture", lambda _: fb.capture(net, x), others={"torch.export": exporter})
        captured = fb.capture(net, x)
        self.verb("fold", fb.fold, lambda: copy.deepcopy(captured))
        model = fb.fold(captured)
        self.verb("plan", lambda _: fb.plan(model, "w8a8"))
        plan = fb.plan(model, "w8a8")
        self.verb("calibrate", lambda _: fb.calibrate(model, plan, [x]))
        sim = fb.calibrate(model, plan, [x])
        self.verb("equalize", lambda _: fb.equalize(sim, [x]))
        self.verb("correct_biases", lambda _: fb.correct_biases(sim, [x]))
        schedule = Schedule(iterations=4)
        self.verb("adaround", lambda _: fb.adaround(sim, [x], schedule=schedule))
        self.verb("reconstruct_blocks", lambda _: fb.reconstruct_blocks(sim, [x], schedule=schedule))
        self.verb("explain", lambda _: fb.explain(sim, [x]))
        self.verb("lower", lambda _: fb.lower(sim))
        program = fb.lower(sim)
        self.verb("run", lambda _: program(x))
        runs = watched(onnxruntime.InferenceSession, "run")  # what takes long in it is a copy that gives every value
        with watched(onnxruntime, "InferenceSession") as sessions, runs as running:
            start = {"ONNX Runtime's sessions": sessions, "ONNX Runtime's runs": running}
            self.verb("export", lambda _: fb.export_onnx(program, self.folder / "a.onnx", [x]), others=start)
            self.verb("report", lambda _: fb.report(program, sim=sim, batches=[x]).html(), others=start)
        path = self.folder / "a.fewbits"
        self.verb("save", lambda _: program.save(path))
        program.save(path)
        self.verb("load", lambda _: fb.load(path))
        self.verb("verify", lambda _: verify(path))


def measured(depths: tuple[int, ...], wanted: frozenset[str], repeats: int, console: Console) -> list[Growth]:
    """One `Growth` for each depth."""
    found = []
    for depth in depths:
        with tempfile.TemporaryDirectory() as folder:
            growth = Growth(depth, Path(folder), wanted, repeats)
            begun = time.perf_counter()
            growth.run()
            console.print(f"{depth} layers: {time.perf_counter() - begun:.0f} s", highlight=False)
            found.append(growth)
    return found


def table(found: list[Growth]) -> Table:
    """Seconds by verb and depth, and how much more than linear they grow between the last two depths."""
    shown = Table("", *(f"{growth.depth} layers" for growth in found), "over linear",
                  title="processor seconds; what is indented is not ours, and not in the line above it")
    for column in shown.columns[1:]:
        column.justify = "right"
    for verb in found[-1].seconds:
        _add(shown, verb, found, [growth.seconds[verb] for growth in found])
        for what in (what for what in found[-1].apart if what.startswith(f"{verb}: ")):
            calls = ", ".join(str(growth.calls[what]) for growth in found)
            _add(shown, f"  {what.removeprefix(f'{verb}: ')} ({calls})", found,
                 [growth.apart[what] for growth in found])
    return shown


def _add(shown: Table, name: str, found: list[Growth], seconds: list[float]) -> None:
    over = ""
    if len(found) > 1:
        over = f"{seconds[-1] / seconds[-2] / (found[-1].depth / found[-2].depth):.2f}"
    shown.add_row(name, *(f"{value:.3g}" for value in seconds), over)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("depths", nargs="*", type=int, default=DEPTHS)
    parser.add_argument("--verbs", default="", help="some of them, separated by commas; all by default")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    wanted = frozenset(filter(None, given.verbs.split(",")))
    console.print(table(measured(tuple(given.depths), wanted, given.repeats, console)))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.native_engine`: whole networks through the native engine beside ONNX Runtime and torch, as
ratios.

One thread, batch 1 unless said; all candidates of a network run in turns in one process, medians of thread CPU time.
Weights
are random: they do not change the time. The int8 file of ONNX Runtime is the one that fewbits exports, as it runs by
default (on processors without VNNI that saturates, and `exact` is the option that does not). Every network's codes are
compared with the torch executor's before it is timed.
"""

import importlib.util
import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import onnxruntime as ort
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.native_kernels import medians
from fewbits.engines.native.executor import NativeExecutor
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.graph.capture import capture
from fewbits.graph.fold import fold
from fewbits.kernels import library
from fewbits.lower.lower import lower
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.report.machine import this_machine
from fewbits.tasks.registry import TASKS
from fewbits.tasks.training import initialised
from fewbits.writers.onnx.program import onnx_bytes
from fewbits.writers.onnx.twin import float_onnx_bytes

OURS = ("lenet5", "resnet20", "mobilenet_v2", "squeezenet")
ZOO = ("resnet18", "mobilenetv3_small_100", "efficientnet_b0", "convnext_atto", "vit_tiny_patch16_224",
       "swin_tiny_patch4_window7_224", "mobilevit_xxs")


@dataclass(frozen=True, eq=False)
class Network:
    """A float network and a batch for it."""

    net: nn.Module
    x: torch.Tensor


def network(name: str, batch: int) -> Network:
    """One of ours, or of timm with random weights."""
    if name in TASKS:
        task = TASKS[name]
        assert task.example_shape is not None
        net, shape = initialised(task.build, seed=0).eval(), task.example_shape
    else:
        import timm  # pyright: ignore[reportMissingImports]  measured where it is installed

        torch.manual_seed(0)
        net = timm.create_model(name, pretrained=False).eval()
        shape = net.default_cfg["input_size"]
    return Network(net, torch.randn(max(batch, 2), *shape, generator=torch.Generator().manual_seed(1)))


def session(model: bytes, exact: bool = False) -> ort.InferenceSession:
    """One thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def row(name: str, program: Program, made: Network, batch: int, levels: tuple[library.Level, ...],
        repeats: int) -> list[str]:
    """A network's figures. Raises AssertionError where a code differs."""
    x = made.x[:batch]
    inputs = {program.inputs[0]: x.numpy()}
    wanted = TorchExecutor(program).run(inputs)
    engines, compiling = {}, 0.0
    for level in levels:
        with library.use(level):
            engine = engines[level] = NativeExecutor(program)
            begun = time.thread_time()
            found = engine.run(inputs)
            compiling = time.thread_time() - begun
            for key, codes in wanted.items():
                assert program.is_float(key) or np.array_equal(codes, found[key]), f"{name}, {key} at {level}"
    real = session(float_onnx_bytes(program))
    whole = [session(onnx_bytes(program), exact) for exact in (False, True)]

    def eager() -> None:
        with torch.no_grad():
            made.net(x)

    def peer() -> None:
        real.run(None, inputs)

    times = medians([peer, *(lambda s=s: s.run(None, inputs) for s in whole), eager], repeats)
    ratios = [times[0] / t for t in times[1:]]
    for level in levels:  # each beside the peer: changing the level costs more than LeNet-5
        with library.use(level):
            theirs, own = medians([peer, lambda level=level: engines[level].run(inputs)], repeats)
            ratios.append(theirs / own)
    first = engines[levels[-1]]
    fallbacks, arena = first.fallbacks(inputs), first.arena(inputs)
    return [name, f"{times[0] / 1e3:.3f}", *(f"{ratio:.2f}" for ratio in ratios), str(len(fallbacks)),
            f"{compiling * 1e3:.0f}", f"{arena.size / 2**20:.2f} / {arena.needed / 2**20:.2f}"]


def main(only: Annotated[str, typer.Option(help="names, with commas")] = "", recipe: Annotated[str,
                                                                                               typer.Option()] = "w8a8",
         batch: Annotated[int, typer.Option(help="images at once")] = 1,
         repeats: Annotated[int, typer.Option(help="of each candidate")] = 21,
         level: Annotated[str, typer.Option(help="one level alone")] = "") -> None:
    """Prints a table: one row a network."""
    zoo = ZOO if importlib.util.find_spec("timm") is not None else ()
    names = tuple(only.split(",")) if only else (*OURS, *zoo)
    levels: tuple[library.Level, ...] = tuple(each for each in library.levels()[2:] if level in ("", each))
    table = Table("network", "ORT fp32 ms", "ORT int8", "exact", "torch fp32", *levels, "in torch", "compile ms",
                  "arena / needed MiB", title=f"{recipe}, batch {batch}: times ONNX Runtime fp32")
    for name in names:
        made = network(name, batch)
        model = fold(capture(made.net, made.x))
        program = lower(calibrate(model, plan(model, recipe), [made.x]))
        table.add_row(*row(name, program, made, batch, levels, repeats))
    console = Console(width=170)
    console.print(table)
    console.print(str(this_machine()), highlight=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)

"""How long float and integers take, in ONNX Runtime and in each other engine here, on the same threads, in alternating
runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import numpy as np
import torch

from fewbits.engines.exactness import portable_nodes
from fewbits.engines.executors import Native, Torch
from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.processor import Target, this_processor
from fewbits.options import options_checked
from fewbits.program.program import Program
from fewbits.writers.onnx.program import onnx_bytes
from fewbits.writers.onnx.twin import float_onnx_bytes

_WARM_UP = 3
_FEWEST = 5


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one run of a batch. float_ms: the same graph in float32 in ONNX Runtime; ms: the program
    with integer operators there; others: the program in the other engines that give its codes, by name; rounds: runs of
    each that the medians are taken over."""

    float_ms: float
    ms: float
    batch: int
    threads: int
    rounds: int
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def speedup(self) -> float:
        """Float time over integer time."""
        return self.float_ms / self.ms

    def __str__(self) -> str:
        others = "".join(f"; {name} {ms:.3f} ms: {self.float_ms / ms:.2f}" for name, ms in self.others.items())
        return f"float {self.float_ms:.3f} ms, integers {self.ms:.3f} ms: {self.speedup:.2f} times as fast{others}"


@options_checked
def latency(program: Program, inputs: Mapping[str, np.ndarray], threads: int = 1, rounds: int = 200,
            seconds: float = 2.0, processor: Target = "any", integers: OnnxSession | None = None) -> Latency:
    """All timed on one batch, turn by turn, so that a change of clock meets all.

    inputs: float32 arrays by input name; threads: of the engine; rounds: timed runs of each at most, fewer
    (but 5) once `seconds` have passed; processor: for which one the integer model is written, as for an export;
    integers: that model in a session on as many threads, where there is one.
    """
    if integers is None:
        portable = portable_nodes(program, processor, this_processor())
        integers = OnnxSession(onnx_bytes(program, portable=portable), "all", threads)
    runs = [OnnxSession(float_onnx_bytes(program), "all", threads).run, integers.run]
    engines = [each for each in (Native(threads), Torch()) if not each.refusal(program)]
    runs += [each.prepare(program).numbers for each in engines]
    with _torch_threads(threads):
        times = timed([lambda run=run: run(inputs) for run in runs], rounds, seconds)
    batch = len(inputs[program.inputs[0]])
    float_ms, ms, *others = map(median, times)
    return Latency(float_ms, ms, batch, threads, len(times[0]),
                   dict(zip((each.name for each in engines), others, strict=True)))


def timed(runs: Sequence[Callable[[], object]], rounds: int, seconds: float) -> list[list[float]]:
    """Milliseconds of each call of each run, turn by turn, after some that do not count. rounds: calls of each at most,
    fewer (but 5) once `seconds` have passed."""
    for run in runs:
        for _ in range(_WARM_UP):
            run()
    times: list[list[float]] = [[] for _ in runs]
    begun = perf_counter()
    while len(times[0]) < rounds and (len(times[0]) < _FEWEST or perf_counter() - begun < seconds):
        for run, taken in zip(runs, times, strict=True):
            start = perf_counter()
            run()
            taken.append(1000 * (perf_counter() - start))
    return times


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """threads: 0 leaves torch its own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""How long float and integers take in the same engine, on the same threads, in alternating runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from fewbits.engines.exactness import portable_nodes
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
    """Median milliseconds of one run of a batch in ONNX Runtime. float_ms: the same graph in float32;
    ms: the program with integer operators; rounds: runs of each that the medians are taken over."""

    float_ms: float
    ms: float
    batch: int
    threads: int
    rounds: int

    @property
    def speedup(self) -> float:
        """Float time over integer time."""
        return self.float_ms / self.ms

    def __str__(self) -> str:
        return f"float {self.float_ms:.3f} ms, integers {self.ms:.3f} ms: {self.speedup:.2f} times as fast"


@options_checked
def latency(program: Program, inputs: Mapping[str, np.ndarray], threads: int = 1, rounds: int = 200,
            seconds: float = 5.0, processor: Target = "any", integers: OnnxSession | None = None) -> Latency:
    """Both models timed on one batch, turn by turn, so that a change of clock meets both.

    inputs: float32 arrays by input name; threads: of the engine; rounds: timed runs of each at most, fewer
    (but 5) once `seconds` have passed; processor: for which one the integer model is written, as for an export;
    integers: that model in a session on as many threads, where there is one.
    """
    if integers is None:
        portable = portable_nodes(program, processor, this_processor())
        integers = OnnxSession(onnx_bytes(program, portable=portable), "all", threads)
    sessions = OnnxSession(float_onnx_bytes(program), "all", threads), integers
    times = timed([lambda session=session: session.run(inputs) for session in sessions], rounds, seconds)
    batch = len(inputs[program.inputs[0]])
    return Latency(median(times[0]), median(times[1]), batch, threads, len(times[0]))


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

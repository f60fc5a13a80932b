"""Report: the findings with a way to show them, and how they are gathered."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from fewbits.engines.engine import Engine
from fewbits.engines.exactness import exactness, portable_nodes
from fewbits.engines.executable import Executable
from fewbits.engines.executors import Native
from fewbits.engines.native.executor import NativeExecutor
from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.onnxruntime import PreparedModel
from fewbits.engines.processor import Target, this_processor
from fewbits.files import write_whole
from fewbits.options import options_checked
from fewbits.program.inputs import Batch
from fewbits.program.program import Program
from fewbits.quant.calibrate import BatchToInputs
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import Classifier, compare
from fewbits.report.batches import arrays, bound
from fewbits.report.energy import energy_estimates
from fewbits.report.engines import agreement
from fewbits.report.explain import Explanation
from fewbits.report.findings import Findings
from fewbits.report.footprint import footprint
from fewbits.report.latency import latency
from fewbits.report.ledger import ledger
from fewbits.report.machine import this_machine
from fewbits.report.page import page
from fewbits.report.simulation_gap import simulation_gap
from fewbits.report.sites import inside_recurrences, site_errors
from fewbits.report.sizes import float_file_bytes, size_items, stored_items
from fewbits.report.terminal import render
from fewbits.writers.onnx.program import onnx_bytes


class Report(Findings):
    """Findings that can be shown: `print`, `render` to a terminal, `save` as a page."""

    def render(self, console: Console | None = None, verbose: bool = True) -> None:
        """Prints to a rich console, standard output by default: everything, or without `verbose` a screenful."""
        render(self, console or Console(), verbose)

    def html(self) -> str:
        """The page: one self-contained HTML document."""
        return page(self)

    def save(self, path: str | Path) -> None:
        """Writes the page beside `path`, then in its place. Raises FileError, an old file untouched."""
        write_whole(path, self.html().encode())

    def __str__(self) -> str:
        seen = f"{self.comparison}; " if self.comparison else ""
        return (f"{self.model} ({self.recipe}): {seen}{self.float_bytes} → {self.bytes} bytes; "
                f"{self.mismatches} of {self.compared_codes} codes differ")


@options_checked
def build(program: Program, simulation: Simulation, batches: Iterable[Batch], *,
          test: Iterable[Any] | None = None, model: str = "model", recipe: str = "",
          float_model: Classifier | None = None, sizes: Iterable[tuple[str, str, int]] = (),
          every_value: bool = True, reference_batches: int | None = None, latency_batch: int = 1,
          threads: int = 1, explanation: Explanation | None = None, batch_to_inputs: BatchToInputs = None,
          processor: Target = "any", engine: str | Engine = "fastest") -> Report:
    """Measures everything about one program.

    batches: re-iterable, as for calibration; tensors, gap and engines are measured on all of them, and
    time on the first `latency_batch` inputs of the first. test: labelled batches (inputs, labels) for the
    accuracy, where there are labels. model, recipe: names for the reader. float_model: the original, where
    it is not the simulation's own float model. sizes: (layer, part, bytes) of the file that was written.
    explanation: of `fb.explain`, to be shown beside; every_value, reference_batches: as for `agreement`;
    batch_to_inputs: for the inputs of both; processor: for which one the exported file is written, whose exactness and
    time are told; engine: runs the program for the accuracy.
    Raises DataError for data that does not fit, ProgramError when the program is not the simulation's.
    """
    items = size_items(sizes)
    first = next(bound(program, batches, "", batch_to_inputs))
    timed = {name: array[:latency_batch] for name, array in arrays(first).items()}
    in_torch = None if Native().missing else NativeExecutor(program).fallbacks(timed)
    entries = ledger(program, simulation.plan, simulation.model.graph, in_torch)
    comparison = None
    if test is not None:
        comparison = compare(float_model or simulation.model, Executable(program, engine), test, batch_to_inputs)
    ready = None
    if program.profile.engine == "onnxruntime":
        portable = portable_nodes(program, processor, this_processor())
        ready = PreparedModel(program, OnnxSession(onnx_bytes(program, portable=portable), "all", threads))
    engines = agreement(program, batches, every_value, reference_batches, threads, batch_to_inputs, processor, ready)
    return Report(
        model=model, recipe=recipe, images=engines[-1].images, comparison=comparison, ledger=entries,
        sites=site_errors(program, simulation, batches, batch_to_inputs),
        gap=simulation_gap(program, simulation, batches, batch_to_inputs),
        engines=engines,
        latency=latency(program, timed, threads, integers=ready.session) if ready else None,
        energy=energy_estimates(program),
        footprint=footprint(program),
        float_bytes=float_file_bytes(simulation.model),
        sizes=items or stored_items(entries),
        stored="file" if items else "stored tensors", machine=this_machine(),
        explanation=explanation,
        inside=inside_recurrences(program, simulation.plan),
        exactness=exactness(program, processor, this_processor()) if program.profile.engine else None)

"""Error by tensor: the float model's numbers against the Program's, wherever a tensor got codes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fewbits.engines.fastest import Fastest
from fewbits.graph.graph import Graph
from fewbits.graph.model import Visitor
from fewbits.lower.inputs import input_codes
from fewbits.program.inputs import Batch
from fewbits.program.ops import Recurrence
from fewbits.program.program import Program, leaves
from fewbits.quant.calibrate import BatchToInputs
from fewbits.quant.plan import Plan
from fewbits.quant.simulation import Simulation
from fewbits.report.batches import arrays, bound
from fewbits.report.sqnr import decibels


@dataclass(frozen=True)
class SiteError:
    """One tensor. kind: `input`, `activation`, `accumulator`, or `float output`, which has no codes; sqnr: in dB, over
    all images together: 10 · log10(energy of the float numbers / energy of their error). The error includes that of the
    tensors before it."""

    site: str
    kind: str
    sqnr: float

    def __str__(self) -> str:
        return f"{self.site} ({self.kind}): {self.sqnr:.1f} dB"


def site_errors(program: Program, simulation: Simulation, batches: Iterable[Batch],
                batch_to_inputs: BatchToInputs = None) -> tuple[SiteError, ...]:
    """SQNR of every tensor that is computed, and of outputs left in float, in graph order, in one pass over the
    batches.

    simulation: gives the float model (its parameters unquantized) and the plan. Raises DataError as
    `bound` does.
    """
    left = float_outputs(program, simulation.model.graph)
    wanted = value_names(program, simulation.plan) | left
    engine = Fastest().prepare(program, tuple(wanted.values()))
    energies = {site: np.zeros(2) for site in wanted}
    for tensors in bound(program, batches, "measuring tensors", batch_to_inputs):
        codes = engine.run(arrays(tensors)).codes
        real = {site: program.real(name, codes[name]) for site, name in wanted.items()}
        with torch.no_grad():
            simulation.model.run(tensors, _Measuring(real, energies))
    return tuple(SiteError(site, "float output" if site in left else simulation.plan.sites[site].kind,
                           float(decibels(*energies[site]))) for site in wanted)


def value_names(program: Program, plan: Plan) -> dict[str, str]:
    """The program's value for each tensor that is computed rather than stored, those inside of recurrences left out,
    which have one at every step."""
    names = {name: input_codes(name) if site.kind == "input" else name for name, site in plan.sites.items()
             if site.kind in ("input", "activation", "accumulator")}
    inside = {name for node in program.nodes if isinstance(node, Recurrence) for name in node.inside}
    return {name: value for name, value in names.items() if value not in inside}


def inside_recurrences(program: Program, plan: Plan) -> tuple[str, ...]:
    """The tensors that `value_names` leaves out: they have a value at every step, and no error of their own here."""
    measured = value_names(program, plan)
    return tuple(name for name, site in plan.sites.items()
                 if site.kind in ("activation", "accumulator") and name not in measured)


def float_outputs(program: Program, graph: Graph) -> dict[str, str]:
    """The program's value for each output of the model that the recipe left in float."""
    return {name: value for name, value in zip(leaves(graph.structure), leaves(program.structure), strict=True)
            if program.is_float(value)}


class _Measuring(Visitor):
    """Adds up the energy of each tensor's numbers, and that of their error."""

    def __init__(self, real: Mapping[str, np.ndarray], energies: Mapping[str, np.ndarray]):
        self.real, self.energies = real, energies

    def value(self, name: str, value: Any) -> Any:
        if name in self.real:
            exact = value.detach().cpu().numpy().astype(np.float64)
            self.energies[name][:] += np.square(exact).sum(), np.square(exact - self.real[name]).sum()
        return value

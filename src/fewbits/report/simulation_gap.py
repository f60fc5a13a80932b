"""How far the float simulation is from the Program, node by node, each fed the Program's own codes.

A simulated node rounds in float32 where the Program rounds integers, so near a tie the two may
choose neighbouring codes; feeding every node the Program's codes keeps such a choice from spreading.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fewbits.engines.engine import Arrays
from fewbits.engines.fastest import Fastest
from fewbits.errors import CalibrationError
from fewbits.program.inputs import Batch
from fewbits.program.program import Program
from fewbits.quant.calibrate import BatchToInputs
from fewbits.quant.simulation import Simulation, SimulationVisitor
from fewbits.report.batches import arrays, bound
from fewbits.report.sites import float_outputs, value_names


@dataclass(frozen=True)
class SiteGap:
    """Codes of one tensor. largest: biggest difference, in steps of the tensor's encoding."""

    site: str
    compared: int
    differing: int
    largest: int


@dataclass(frozen=True)
class OutputGap:
    """Sums, or floats of an island, that leave without codes. relative: biggest difference over the biggest number."""

    site: str
    compared: int
    relative: float


@dataclass(frozen=True)
class SimulationGap:
    """Every tensor with codes, in graph order, and the float outputs, which have none and are counted apart."""

    sites: tuple[SiteGap, ...]
    outputs: tuple[OutputGap, ...]

    @property
    def compared(self) -> int:
        """Codes compared."""
        return sum(site.compared for site in self.sites)

    @property
    def differing(self) -> int:
        """Codes that differ."""
        return sum(site.differing for site in self.sites)

    @property
    def largest(self) -> int:
        """Biggest difference, in steps."""
        return max((site.largest for site in self.sites), default=0)

    @property
    def worst(self) -> tuple[SiteGap, ...]:
        """The tensors that differ at all, by share of codes, worst first."""
        return tuple(sorted((site for site in self.sites if site.differing),
                            key=lambda site: -site.differing / site.compared))

    def __str__(self) -> str:
        return f"{self.differing} of {self.compared} codes differ, by {self.largest} step at most"


def simulation_gap(program: Program, simulation: Simulation, batches: Iterable[Batch],
                   batch_to_inputs: BatchToInputs = None) -> SimulationGap:
    """Simulation against Program at every tensor, in one pass over the batches.

    Raises CalibrationError when the simulation does not simulate, DataError as `bound` does.
    """
    if simulation.mode != "simulate" or simulation.training:
        raise CalibrationError("the simulation is not in evaluation mode, simulating: "
                               "call sim.eval() and sim.set_mode('simulate') first")
    sites = value_names(program, simulation.plan)
    wanted = sites | float_outputs(program, simulation.model.graph)
    engine = Fastest().prepare(program, tuple(wanted.values()))
    coded = {site: name for site, name in sites.items() if not program.is_accumulator(name)}
    floating = {site: name for site, name in wanted.items() if site not in coded}
    counts = {site: np.zeros(3, np.int64) for site in coded}  # compared, differing, largest
    outputs = {site: np.zeros(3) for site in floating}        # compared, largest difference, largest number
    for tensors in bound(program, batches, "comparing the simulation", batch_to_inputs):
        codes = engine.run(arrays(tensors)).codes
        visitor = _Forcing(program, simulation, {site: codes[name] for site, name in wanted.items()}, wanted,
                           counts, outputs)
        with torch.no_grad():
            simulation.run(tensors, visitor)
    return SimulationGap(
        tuple(SiteGap(site, *(int(n) for n in counts[site])) for site in coded),
        tuple(OutputGap(site, int(compared), float(difference / largest) if largest else float(difference))
              for site, (compared, difference, largest) in outputs.items()))


class _Forcing(SimulationVisitor):
    """Compares each tensor's simulated numbers with the program's codes, then passes the program's on."""

    def __init__(self, program: Program, simulation: Simulation, codes: Arrays, names: Mapping[str, str],
                 counts: Arrays, outputs: Arrays):
        super().__init__(simulation)
        self.program, self.codes, self.names = program, codes, names
        self.counts, self.outputs = counts, outputs

    def value(self, name: str, value: Any) -> Any:
        simulated = super().value(name, value)
        if name not in self.codes:
            return simulated
        codes = self.codes[name]
        array, real = simulated.detach().cpu().numpy(), self.program.real(self.names[name], codes)
        if name in self.outputs:
            seen = self.outputs[name]
            seen[:] = (seen[0] + codes.size, max(seen[1], np.abs(array - real).max(initial=0)),
                       max(seen[2], np.abs(real).max(initial=0)))
            return simulated
        encoding = self.program.encoding(self.names[name])
        steps = np.abs(encoding.encode(array).codes.astype(np.int64) - codes)
        seen = self.counts[name]
        seen[:] = seen[0] + codes.size, seen[1] + np.count_nonzero(steps), max(seen[2], steps.max(initial=0))
        return torch.from_numpy(real).to(simulated.device)


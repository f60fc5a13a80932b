"""One search: a space, the data that decides, and what an assignment does to the network's outputs."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fewbits.engines.engine import Engine
from fewbits.engines.executable import Executable
from fewbits.engines.registry import engine as engine_of
from fewbits.errors import RepairWarning, SearchError
from fewbits.lower.lower import lower
from fewbits.optimize.repairs import repair
from fewbits.program.inputs import Batch
from fewbits.program.profile import profile as profile_of
from fewbits.quant.calibrate import model_inputs
from fewbits.quant.simulation import Simulation
from fewbits.search.encodings import Encodings
from fewbits.search.space import Assignment, Space
from fewbits.storage.digests import digest_of_state

Partial = tuple[int | None, ...]
"""One candidate per group, or None where the tensor stays float."""
_DIRECTIONS = 16


@dataclass(frozen=True)
class Measured:
    """What an assignment does on the samples that decide.

    noise: energy of the outputs' error over that of the float outputs; sqnr: mean over samples of that ratio in dB, at
    most 144.5; flips: samples whose largest output is another; right: of labelled samples, those classified rightly.
    Of what was measured against the finest candidates also where the noise lies, in lengths of the float outputs:
    along: by how much the outputs grew, -1 where they are gone; shift: what else is the same for all samples, in at
    most 16 directions (those of the outputs, or random ones of like length in the mean); in neither: the rest.
    """

    noise: float
    sqnr: float
    flips: int
    right: int | None
    samples: int
    along: float = 0.0
    shift: tuple[float, ...] = ()

    @property
    def flip_rate(self) -> float:
        """Share of the samples that flip."""
        return self.flips / self.samples


@dataclass(frozen=True, eq=False)
class Problem:
    """space; inputs: by name, the samples that decide; outputs: of the float network, float32 [N, classes]; labels:
    int64 [N] or None; encodings: of candidates, and of what is not searched; profile: of programs; engine: runs
    them."""

    space: Space
    inputs: Mapping[str, torch.Tensor]
    outputs: torch.Tensor
    labels: torch.Tensor | None
    encodings: Encodings
    profile: str = "onnxruntime"
    engine: str | Engine = "fastest"

    @classmethod
    def of(cls, space: Space, calibration: Iterable[Batch], samples: Iterable[Any],
           profile: str = "onnxruntime", engine: str | Engine = "fastest") -> "Problem":
        """calibration: batches that ranges come from; samples: batches of inputs, or of (inputs, labels), that decide.
        Encodings are found, on the float network, when something is measured that needs them. Raises SearchError for no
        samples and for outputs that are not one row a sample, CalibrationError for a batch that the model does not
        take."""
        model, encodings = space.model, Encodings(space, calibration)
        inputs, labels = _joined(model, samples)
        with torch.no_grad():
            outputs = model(*inputs.values())
        if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2:
            raise SearchError("a search needs a network that returns one row of numbers per sample")
        return cls(space, inputs, outputs, labels, encodings, profile, engine)

    @property
    def samples(self) -> int:
        """How many samples decide."""
        return len(self.outputs)

    def simulation(self, assignment: Partial) -> Simulation:
        """The simulation of an assignment, simulating; tensors whose candidate is None stay float. Raises
        CalibrationError as `calibrate` does."""
        full = tuple(number or 0 for number in assignment)
        plan = self.space.plan(full)
        simulation = Simulation(self.space.model, replace(plan, repairs=()))
        simulation.set_mode("simulate")
        fixed = self.encodings.fixed
        for site, encoding in fixed.items():
            simulation.quantizer(site).encoding = encoding
        for group, number in zip(self.space.groups, assignment, strict=True):
            quantizer = simulation.quantizer(group.site)
            quantizer.encoding = self.encodings.of(group.site, number or 0)
            if number is None:
                quantizer.mode = "off"
        if None in assignment:
            for site in fixed:
                simulation.quantizer(site).mode = "off"
        else:
            simulation.make_biases_fit()
        return simulation

    def simulated(self, assignment: Partial) -> Measured:
        """What the simulation of an assignment does."""
        simulation = self.simulation(assignment)
        with torch.no_grad():
            return self._measured(simulation(*self.inputs.values()))

    def measured(self, assignment: Assignment) -> Measured:
        """What the integer program of an assignment does: what is promised is measured of this."""
        return self._measured(self._outputs(assignment))

    def moved(self, assignment: Assignment) -> Measured:
        """What the integer program of an assignment does; its noise is that against the program of the finest
        candidates, which tells what one tensor adds without the noise of all others."""
        outputs, whole = self._outputs(assignment), self.outputs.double()
        error, energy = outputs.double() - self._finest.double(), whole.square().sum()
        along = (error * whole).sum() / energy
        shift = (error - along * whole).mean(0) * (self.samples / energy).sqrt() @ self._directions
        return replace(self._measured(outputs), noise=float(error.square().sum() / energy), along=float(along),
                       shift=tuple(shift.tolist()))

    @cached_property
    def _directions(self) -> torch.Tensor:
        """Where shifts are measured, float64 [classes, directions]: the outputs themselves, or where they are many,
        random signs, in which the square of a length is kept in the mean (Achlioptas 2003, JCSS 66, 671-687)."""
        classes = self.outputs.shape[1]
        if classes <= _DIRECTIONS:
            return torch.eye(classes, dtype=torch.float64)
        signs = np.random.default_rng(0).choice((-1.0, 1.0), (classes, _DIRECTIONS))
        return torch.from_numpy(signs / _DIRECTIONS**0.5)

    def repaired(self, assignment: Assignment) -> Measured:
        """What the integer program of an assignment does once the repairs of its recipe were made."""
        chosen = profile_of(self.profile)
        simulation = self.simulation(assignment)
        simulation.plan = replace(simulation.plan, repairs=self.space.base.repairs)
        simulation.follow(chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RepairWarning)  # told of the winner, once it is quantized
            program = lower(repair(simulation, self.encodings.calibration), chosen)
        return self._measured(Executable(program, self.engine)(*self.inputs.values()))

    @cached_property
    def _finest(self) -> torch.Tensor:
        return self._outputs(self.space.finest)

    def _outputs(self, assignment: Assignment) -> torch.Tensor:
        return Executable(lower(self.simulation(assignment), self.profile), self.engine)(*self.inputs.values())

    def _measured(self, outputs: torch.Tensor) -> Measured:
        error = (outputs.double() - self.outputs.double()).square().sum(1)
        signal = self.outputs.double().square().sum(1)
        ratios = (10 * torch.log10(signal / error)).clamp(max=144.5).nan_to_num(144.5)
        top = outputs.argmax(1)
        right = None if self.labels is None else int((top == self.labels).sum())
        return Measured(float(error.sum() / signal.sum()), float(ratios.mean()),
                        int((top != self.outputs.argmax(1)).sum()), right, self.samples)

    @cached_property
    def float_right(self) -> int | None:
        """Labelled samples that the float network classifies rightly."""
        return None if self.labels is None else int((self.outputs.argmax(1) == self.labels).sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides what is measured: network, recipe, candidates, samples, what ranges come from,
        versions, profile, and an engine that does not promise the reference's codes."""
        tensors = {"outputs of the float network": self.outputs,
                   **{f"input {name}": tensor for name, tensor in self.inputs.items()},
                   **({} if self.labels is None else {"labels": self.labels})}
        found = hashlib.sha256(f"{self.encodings.digest} {digest_of_state(tensors)}".encode()).hexdigest()
        engine = engine_of(self.engine)
        other = () if engine.promises else (engine.name,)  # those that promise give the same codes
        return " ".join([found, self.profile, *other])


def _joined(model: Any, samples: Iterable[Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """All samples as one batch of inputs by name, and their labels where the batches have any."""
    parts, labels = [], []
    for batch in samples:
        labelled = (isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], torch.Tensor)
                    and batch[1].dtype == torch.int64 and batch[1].ndim == 1 and len(model.graph.inputs) == 1)
        parts.append(model_inputs(model, batch[0] if labelled else batch))
        if labelled:
            labels.append(batch[1])
    if not parts:
        raise SearchError("there are no samples to decide by: give at least one batch")
    inputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return inputs, torch.cat(labels) if len(labels) == len(parts) else None

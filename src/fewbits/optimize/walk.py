"""Runs the float network and its simulation side by side, node by node, over the same batches.

A repair that works layer by layer sees each layer once, with the inputs the float network gives it and those
that the simulation, repaired so far, gives it. Each node is run once per batch and stream: linear in depth.
Memory: the values alive at the widest place, of all batches, twice; give as few images as the repair needs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fewbits.errors import CalibrationError, DataError
from fewbits.graph.model import Visitor
from fewbits.optimize.layer import Layer, layers, warn_of_layers_inside
from fewbits.program.inputs import Batch
from fewbits.progress import track
from fewbits.quant.calibrate import model_inputs
from fewbits.quant.simulation import Simulation, SimulationVisitor

Values = dict[str, Any]


@dataclass(frozen=True)
class Stop:
    """A layer about to run. reference, simulated: its input in each batch, float32 [B, ...]; streams: for each batch,
    all values still alive of the float network and of the simulation, for repairs that look beyond the layer. A repair
    that knows the layer's result already may put it there, in both; the layer is not run again then."""

    layer: Layer
    reference: list[torch.Tensor]
    simulated: list[torch.Tensor]
    streams: Sequence[tuple[Values, Values]]


def walk(simulation: Simulation, batches: Iterable[Batch], what: str,
         batch_to_inputs: Callable[[Any], Any] | None = None) -> Iterator[Stop]:
    """Stops before each layer; what the caller changes of the layer then is what runs.

    what: said by the progress bar. Warns (RepairWarning) of layers inside recurrences, at which it does not stop.
    Raises CalibrationError, naming the batch, for bad data or none.
    """
    simulation.set_mode("simulate")
    warn_of_layers_inside(simulation, what)
    stops = {layer.name: layer for layer in layers(simulation)}
    reference, simulated = Visitor(), SimulationVisitor(simulation)
    originals = simulation.reference.graph.by_name
    streams = _start(simulation, batches, simulated, batch_to_inputs)
    spent = simulation.model.graph.spent
    for node in track(simulation.model.graph.nodes, what):
        if node.name in stops:
            name = node["input"].name
            yield Stop(stops[node.name], [old[name] for old, _ in streams], [new[name] for _, new in streams], streams)
            node = simulation.model.graph.by_name[node.name]  # the caller may have given it a bias
        with torch.no_grad():
            for old, new in streams:
                if node.name not in new:
                    old[node.name] = simulation.reference.call(originals[node.name], old, reference)
                    new[node.name] = simulated.value(node.name, simulation.model.call(node, new, simulated))
                for name in spent[node.name]:
                    del old[name], new[name]


def _start(simulation: Simulation, batches: Iterable[Batch], visitor: Visitor,
           batch_to_inputs: Callable[[Any], Any] | None) -> list[tuple[Values, Values]]:
    streams = []
    for number, batch in enumerate(batches):
        try:
            inputs = model_inputs(simulation.model, batch, batch_to_inputs)
        except DataError as error:
            raise CalibrationError(f"batch {number}: {error}") from error
        with torch.no_grad():
            streams.append((dict(inputs), {name: visitor.value(name, x) for name, x in inputs.items()}))
    if not streams:
        raise CalibrationError("there are no batches to repair on: give at least one")
    return streams

"""Bias correction: the mean error that quantization puts on each output channel, taken off its bias.

From data, layer by layer: b −= E[ŷ] − E[y], with y the float layer's sums and ŷ those of the simulation repaired
so far. Without data (`correct_biases_without_data`): b −= (W_q − W)·E[x], with E[x] from what batch norm says of
the layers before. Source: Nagel et al. 2019, arXiv:1906.04721, §4.2 and appendix C.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from fewbits.graph.model import Visitor
from fewbits.optimize.bias import give_biases
from fewbits.optimize.expectation import expectations
from fewbits.optimize.layer import Layer, layers
from fewbits.optimize.walk import walk
from fewbits.program.inputs import Batch
from fewbits.quant.simulation import Simulation, SimulationVisitor


def correct_biases(simulation: Simulation, batches: Iterable[Batch], *,
                   batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation whose layers have the float layers' mean outputs on `batches`, channel by channel.

    Rounding of weights must be settled before. All batches are kept in memory.
    """
    repaired = simulation.to_repair()
    repaired.plan = give_biases(repaired.model, repaired.plan)
    for stop in walk(repaired, batches, "correcting biases", batch_to_inputs):
        node = next(n for n in repaired.model.graph.nodes if n.name == stop.layer.name)
        original = next(n for n in repaired.reference.graph.nodes if n.name == stop.layer.name)
        name = stop.layer.node["input"].name
        with torch.no_grad():
            wanted = _mean(stop.layer, [repaired.reference.call(original, {name: x}, Visitor())
                                        for x in stop.reference])
            visitor = SimulationVisitor(repaired)
            got = _mean(stop.layer, [repaired.model.call(node, {name: x}, visitor) for x in stop.simulated])
            bias = repaired.model.tensor(node["bias"].name)
            bias.copy_((bias.double() + wanted - got).to(bias.dtype))
    return repaired


def correct_biases_without_data(simulation: Simulation) -> Simulation:
    """A simulation corrected by what batch norm predicts; layers whose inputs it says nothing of stay as they are."""
    repaired = simulation.to_repair()
    repaired.plan = give_biases(repaired.model, repaired.plan)
    expected = expectations(repaired.reference)
    with torch.no_grad():
        for layer in layers(repaired):
            mean = expected.get(layer.node["input"].name)
            if mean is None:
                continue
            weight = repaired.model.tensor(layer.weight)
            quantized = repaired.quantizer(layer.weight)(weight) if repaired.mode == "simulate" else weight
            bias = repaired.model.tensor(layer.node["bias"].name)
            error = quantized.double() - repaired.reference.tensor(layer.weight).double()
            bias.copy_((bias.double() - shift(layer, error, mean)).to(bias.dtype))
    return repaired


def shift(layer: Layer, error: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """(W_q − W)·E[x], float64 [O]: the mean error of each sum. error: W_q − W; mean: E[x], float64 [channels]."""
    matrix = layer.matrix(error)
    numbers = matrix.shape[0] * matrix.shape[2] // mean.numel()  # of one channel in a sum: kernel places
    per_input = mean.repeat_interleave(numbers).reshape(matrix.shape[0], 1, -1)
    return (matrix * per_input).sum(2).reshape(-1)


def _mean(layer: Layer, outputs: list[torch.Tensor]) -> torch.Tensor:
    """Mean of each channel over all else, float64 [O]."""
    axis = 1 if "stride" in layer.node.arguments else -1
    rows = [y.movedim(axis, 0).flatten(1).double() for y in outputs]
    return torch.stack([y.sum(1) for y in rows]).sum(0) / sum(y.shape[1] for y in rows)

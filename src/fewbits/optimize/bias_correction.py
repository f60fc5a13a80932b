"""Bias correction: the mean error that quantization puts on each output channel, taken off its bias.

From data, layer by layer: each channel's bias moves until E[f(ŷ)] = E[f(y)], y being the float network's sums and ŷ
those of the simulation repaired so far, where they are read: behind the additions that alone read the layer, and
behind the ReLU or clamp f that closes them. Without data (`correct_biases_without_data`): b −= (W_q − W)·E[x], with
E[x] from what batch norm says of the layers before. Source: Nagel et al. 2019, arXiv:1906.04721, §4.2 and appendix C;
there the means are matched before f, which makes those behind it wrong where quantization narrows a distribution
(clipped activations, few bits): docs/ptq-notes.md has the figures.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fewbits.graph.graph import Node
from fewbits.graph.model import Model, Visitor
from fewbits.graph.operators import bounds
from fewbits.optimize.bias import give_biases
from fewbits.optimize.expectation import expectations
from fewbits.optimize.layer import Layer, layers
from fewbits.optimize.walk import walk
from fewbits.program.inputs import Batch
from fewbits.quant.simulation import Simulation, SimulationVisitor

_ROUNDS = 20  # of Newton's method: 4 to 6 are enough, but for a clamp with two bounds it may wander
_EXACT = 1e-6  # of the largest mean: where it ends
_PLACES = 2**16  # of a channel that are looked at, the same ones in both networks


@dataclass(frozen=True)
class _Place:
    """Where a layer's sums are read: nodes: from the layer on, in running order, up to the one whose result that is;
    low, high: of the clamp behind it (else infinite)."""

    nodes: Sequence[Node]
    low: float
    high: float


def correct_biases(simulation: Simulation, batches: Iterable[Batch], *,
                   batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation that hands on the float network's mean activations on `batches`, channel by channel.

    A channel that the float network's clamp keeps at one bound on all batches stays as it is. Rounding of weights must
    be settled before. All batches are kept in memory.
    """
    repaired = simulation.to_repair()
    repaired.plan = give_biases(repaired.model, repaired.plan)
    originals = repaired.reference.graph.by_name
    for stop in walk(repaired, batches, "correcting biases", batch_to_inputs):
        place = _place(repaired, stop.layer)
        same = [originals[node.name] for node in place.nodes]
        channel = 1 if "stride" in stop.layer.node.arguments else -1
        count = -(-_PLACES // len(stop.streams))
        with torch.no_grad():
            wanted = [_some(_sums(repaired.reference, same, old, Visitor()), channel, count) for old, _ in stop.streams]
            visitor = SimulationVisitor(repaired)
            got = [_some(_sums(repaired.model, place.nodes, new, visitor), channel, count) for _, new in stop.streams]
            bias = repaired.model.tensor(place.nodes[0]["bias"].name)
            moved = matching_shift(got, wanted, place.low, place.high)
            bias.copy_((bias.double() + moved).to(bias.dtype))
    return repaired


def matching_shift(got: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], low: float,
                   high: float) -> torch.Tensor:
    """d with mean(clip(got + d, low, high)) = mean(clip(wanted, low, high)), float64 [C], by Newton's method.

    got, wanted: [C, n] of each batch. 0 for a channel that is wanted at one bound everywhere; where no d was found, the
    one that came nearest, 0 included.
    """
    target = _mean([y.clamp(low, high) for y in wanted])
    dead = (target <= low) | (target >= high)
    shift = best = torch.zeros_like(target)
    least = torch.full_like(target, math.inf)
    for _ in range(_ROUNDS):
        moved = [y + shift.to(y.dtype)[:, None] for y in got]
        error = target - _mean([y.clamp(low, high) for y in moved])
        best = torch.where(error.abs() < least, shift, best)
        least = torch.minimum(error.abs(), least)
        slope = _mean([((low < y) & (y < high)).to(y.dtype) for y in moved])
        if (least[~dead] <= _EXACT * target.abs().max()).all():
            break
        shift = shift + torch.where(slope > 0, error / slope.clamp(min=1e-12), 0.0)
    return torch.where(dead, 0.0, best)


def _place(simulation: Simulation, layer: Layer) -> _Place:
    graph = simulation.model.graph
    last = graph.by_name[layer.name]
    while last.name not in graph.outputs and len(graph.consumers[last.name]) == 1:
        reader = graph.consumers[last.name][0]
        if reader.op != "add" or len(set(reader.refs)) != 2 or reader.shape != last.shape:
            break
        last = reader
    closing = graph.by_name[simulation.plan.grid(last.name)]
    nodes = graph.nodes[graph.positions[layer.name]:graph.positions[last.name] + 1]
    return _Place(nodes, *(bounds(closing) if closing is not last else (-math.inf, math.inf)))


def _sums(model: Model, nodes: Sequence[Node], alive: Mapping[str, Any], visitor: Visitor) -> torch.Tensor:
    """The result of the last of the nodes before its own quantizer, from the values alive before the first."""
    values = dict(alive)
    for node in nodes[:-1]:
        values[node.name] = visitor.value(node.name, model.call(node, values, visitor))
    return model.call(nodes[-1], values, visitor)


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


def _some(sums: torch.Tensor, channel: int, count: int) -> torch.Tensor:
    """[C, n]: each channel at all places of a batch, or at about `count` that depend on the shape alone."""
    rows = sums.movedim(channel, 0).flatten(1)
    if rows.shape[1] <= count:
        return rows
    return rows[:, torch.randint(rows.shape[1], (count,), generator=torch.Generator().manual_seed(0))]


def _mean(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of each row over all parts, float64 [C]. parts: [C, n] each."""
    return torch.stack([part.sum(1, dtype=torch.float64) for part in parts]).sum(0) / sum(
        part.shape[1] for part in parts)

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
from fewbits.optimize.layer import Layer, layers, warn_of_layers_inside
from fewbits.optimize.outcome import check_reread, unless_worse
from fewbits.optimize.walk import walk
from fewbits.program.inputs import Batch
from fewbits.program.program import fill
from fewbits.quant.simulation import Simulation, SimulationVisitor

_ROUNDS = 20  # of Newton's method: 4 to 6 are enough, but for a clamp with two bounds it may wander
_EXACT = 1e-6  # of the largest mean: where it ends
_PLACES = 2**13  # of a channel that are looked at, about, the same ones in both networks


@dataclass(frozen=True)
class _Place:
    """Where a layer's sums are read: nodes: from the layer on, in running order, up to the one whose result that is;
    low, high: of the clamp behind it (else infinite)."""

    nodes: Sequence[Node]
    low: float
    high: float


def correct_biases(simulation: Simulation, batches: Iterable[Batch], *, even_if_worse: bool = False,
                   batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation that hands on the float network's mean activations on `batches`, channel by channel.

    A channel that the float network's clamp keeps at one bound on all batches stays as it is, and so does a layer whose
    weight or bias another node reads too: a step of a recurrence, a branch that is taken twice. Rounding of weights
    must be settled before. All batches are kept in memory. even_if_worse: as for `equalize`.
    """
    check_reread(batches, "correct_biases", even_if_worse)
    repaired = simulation.to_repair()
    repaired.plan = give_biases(repaired.model, repaired.plan)
    originals = repaired.reference.graph.by_name
    streams: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = ()
    for stop in walk(repaired, batches, "correcting biases", batch_to_inputs):
        bias, streams = stop.layer.node["bias"].name, stop.streams
        if _is_shared(repaired.model, stop.layer):
            continue
        place = _place(repaired, stop.layer)
        channel = 1 if "stride" in stop.layer.node.arguments else -1
        count = -(-_PLACES // len(stop.streams))
        with torch.no_grad():
            both = [_Pair(repaired, place.nodes, originals, *streams) for streams in stop.streams]
            wanted, got = ([_some(sums, channel, count) for sums in side]
                           for side in zip(*(pair.last() for pair in both), strict=True))
            tensor = repaired.model.tensor(bias)
            moved = matching_shift(got, wanted, place.low, place.high)
            tensor.copy_((tensor.double() + moved).to(tensor.dtype))
            for pair in both:
                pair.hand_on(channel)
    structure = repaired.model.graph.structure  # the walk is over: of its values the outputs are left
    seen = [(fill(structure, old), fill(structure, new)) for old, new in streams]
    return unless_worse(simulation, repaired, batches, "correct_biases", even_if_worse, batch_to_inputs, seen or None)


class _Pair:
    """A layer's sums in both networks, for one batch, computed once."""

    def __init__(self, simulation: Simulation, nodes: Sequence[Node], originals: Mapping[str, Node],
                 old: dict[str, Any], new: dict[str, Any]):
        self.simulation, self.nodes, self.old, self.new = simulation, nodes, old, new
        self._same, self._visitor = [originals[node.name] for node in nodes], SimulationVisitor(simulation)
        self._wanted = simulation.reference.call(self._same[0], old, Visitor())
        self._got = simulation.model.call(nodes[0], new, self._visitor)
        self._before = self._bias()

    def last(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(float network's, simulation's) result of the last node, before its own quantizer."""
        if len(self.nodes) == 1:
            return self._wanted, self._got
        old = self.old | {self.nodes[0].name: self._wanted}
        new = self.new | {self.nodes[0].name: self._visitor.value(self.nodes[0].name, self._got)}
        return (_sums(self.simulation.reference, self._same[1:], old, Visitor()),
                _sums(self.simulation.model, self.nodes[1:], new, self._visitor))

    def hand_on(self, channel: int) -> None:
        """Puts the layer's result, its bias as it is now, among the values that go on."""
        moved = self._bias() - self._before
        shape = [1] * self._got.ndim
        shape[channel] = -1
        name = self.nodes[0].name
        self.old[name] = self._wanted
        self.new[name] = self._visitor.value(name, self._got.add_(moved.reshape(shape)))

    def _bias(self) -> torch.Tensor:
        """As the layer adds it: quantized with the scale of its sums."""
        name = self.nodes[0]["bias"].name
        return self._visitor.parameter(self.nodes[0], "bias", name, self.simulation.model.tensor(name)).clone()


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


def _is_shared(model: Model, layer: Layer) -> bool:
    """Whether another node reads its weight or its bias too."""
    readers = model.graph.param_consumers
    return any(len(readers[name]) > 1 for name in layer.node.params)


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
    """A simulation corrected by what batch norm predicts.

    Layers whose inputs it says nothing of, or that share a weight or bias, stay as they are.
    """
    repaired = simulation.to_repair()
    repaired.plan = give_biases(repaired.model, repaired.plan)
    expected = expectations(repaired.reference)
    warn_of_layers_inside(repaired, "correcting biases")
    with torch.no_grad():
        for layer in layers(repaired):
            mean = expected.get(layer.node["input"].name)
            if mean is None or _is_shared(repaired.model, layer):
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
    """[C, n]: each channel at all places of a batch, or at about `count` that depend on the shape alone, as many of
    each input."""
    rows = sums.movedim(channel, 1).flatten(2) if sums.ndim > 2 else sums[:, :, None]  # [N, C, places of an input]
    each = -(-count // len(rows))
    if rows.shape[2] > each:
        rows = rows[:, :, torch.randint(rows.shape[2], (each,), generator=torch.Generator().manual_seed(0))]
    return rows.transpose(0, 1).flatten(1)


def _mean(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of each row over all parts, float64 [C]. parts: [C, n] each."""
    return torch.stack([part.sum(1, dtype=torch.float64) for part in parts]).sum(0) / sum(
        part.shape[1] for part in parts)

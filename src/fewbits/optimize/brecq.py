"""Block reconstruction: the roundings of all layers of a block learned together, against the block's output.

As AdaRound (optimize/adaround.py), with f a whole residual block: what one layer does wrong another can take back. A
block runs from one place where everything passes through a single value to the next; where layers simply follow
each other, each is a block. Errors are weighed equally: the paper's weights from the Fisher diagonal are left out.
Sources: Li et al. 2021, arXiv:2102.05426; `drop`: Wei et al. 2022, arXiv:2203.05740 (QDrop), at the block's input.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewbits.errors import CalibrationError
from fewbits.graph.graph import Node
from fewbits.graph.model import Model, Visitor
from fewbits.optimize.adaround import Schedule, beta_at, initial, raised, rectified_sigmoid, undecided
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.optimize.layer import coded_layers, warn_of_layers_inside
from fewbits.optimize.outcome import check_reread, unless_worse
from fewbits.optimize.rounding import grid, integer_encoding, nearest, write_codes
from fewbits.program.inputs import Batch
from fewbits.program.program import leaves
from fewbits.progress import track
from fewbits.quant.calibrate import model_inputs
from fewbits.quant.simulation import Simulation, SimulationVisitor

_IMAGES = 32  # of one iteration


@dataclass(frozen=True)
class Block:
    """start: the value that all of it reads; nodes: in running order; the last one's result is the block's."""

    start: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class _Rounding:
    """One weight being rounded. floor, scale, zero_point: of each element; v: learned."""

    weight: str
    floor: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    zero_point: torch.Tensor
    v: torch.Tensor

    def soft(self) -> torch.Tensor:
        return raised(self.floor, rectified_sigmoid(self.v), self.low, self.high) * self.scale

    def codes(self) -> torch.Tensor:
        return raised(self.floor, self.v.detach() >= 0, self.low, self.high) + self.zero_point


def blocks(simulation: Simulation) -> Iterator[Block]:
    """The graph cut wherever only one value is alive, behind the clamp that closes a layer and never before it.

    Raises CalibrationError for a model of several inputs.
    """
    graph = simulation.model.graph
    if len(graph.inputs) != 1:
        raise CalibrationError("block reconstruction needs a model of one input")
    end = len(graph.nodes)
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.refs}
    last |= dict.fromkeys(leaves(graph.structure), end)
    start, nodes, alive = graph.inputs[0].name, [], {graph.inputs[0].name}
    seen = {start}
    for i, node in enumerate(graph.nodes):
        nodes.append(node)
        alive = {name for name in alive | {node.name} if last.get(name, -1) > i}
        seen.add(node.name)
        closed = simulation.plan.grid(node.name) in seen and node.shape is not None
        # Else its grid is that of a clamp still to come, or it makes several tensors, which are picked out behind it.
        if alive <= {node.name} and closed:
            yield Block(start, tuple(nodes))
            start, nodes = node.name, []
    if nodes:
        yield Block(start, tuple(nodes))


def reconstruct_blocks(simulation: Simulation, batches: Iterable[Batch], *, schedule: Schedule | None = None,
                       drop: float = 0.0, seed: int = 0, even_if_worse: bool = False,
                       checkpoint: str | Path | None = None,
                       batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation whose weights are rounded block by block; scales and biases stay.

    schedule: its iterations are a block's, each on 32 images; drop: share of a block's input numbers left
    unquantized while learning. After AdaRound it begins from that rounding. A block keeps the rounding it had where the
    learned one is not nearer to the float block. checkpoint, batches: as for `adaround`; even_if_worse: as for
    `equalize`.
    """
    check_reread(batches, "reconstruct_blocks", even_if_worse)
    schedule = schedule or Schedule()
    repaired = simulation.to_repair()
    repaired.set_mode("simulate")
    kept = Checkpoint.open(checkpoint, repaired, f"brecq {schedule} {drop} {seed}", batches)
    name = repaired.model.graph.inputs[0].name
    given = [model_inputs(repaired.model, batch, batch_to_inputs)[name] for batch in kept.batches]
    if not given:
        raise CalibrationError("there are no batches to repair on: give at least one")
    visitor = SimulationVisitor(repaired)
    old = torch.cat(given)
    with torch.no_grad():
        new = visitor.value(name, old)
    warn_of_layers_inside(repaired, "reconstructing blocks")
    weights = {layer.name: layer.weight for layer in coded_layers(repaired)}
    originals = repaired.reference.graph.by_name
    for number, block in enumerate(track(list(blocks(repaired)), "rounding blocks")):
        names = [weights[node.name] for node in block.nodes if node.name in weights]
        same = Block(block.start, tuple(originals[node.name] for node in block.nodes))
        with torch.no_grad():
            target = run_block(repaired.reference, same, old, Visitor())
        if names and all(weight in kept for weight in names):
            for weight in names:
                write_codes(repaired, weight, kept.codes(repaired, weight))
        elif names:
            generator = torch.Generator().manual_seed(seed * 100_003 + number)
            for weight, codes in _learn(repaired, block, names, (old, new, target), schedule, drop, generator).items():
                write_codes(repaired, weight, codes)
                kept.add({weight: codes})
        with torch.no_grad():
            result = run_block(repaired.model, block, new, WithinBlock(repaired, block))
            old, new = target, visitor.value(block.nodes[-1].name, result)
    return unless_worse(simulation, repaired, kept.batches, "reconstruct_blocks", even_if_worse, batch_to_inputs)


def _learn(simulation: Simulation, block: Block, names: Sequence[str], data: tuple[torch.Tensor, ...],
           schedule: Schedule, drop: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Codes of each weight of a block."""
    old, new, target = data
    plain = {name: nearest(simulation.quantizer(name).encoding, simulation.model.tensor(name)) for name in names}
    unit = error_of_block(simulation, block, new, target, {})
    if unit == 0:
        return plain
    roundings = [_begin(simulation, name, plain[name]) for name in dict.fromkeys(names)]
    adam = torch.optim.Adam([rounding.v for rounding in roundings], lr=schedule.rate)
    for iteration in range(schedule.iterations):
        which = torch.randint(len(new), (min(_IMAGES, len(new)),), generator=generator)
        x = new[which]
        if drop:
            x = torch.where(torch.rand(x.shape, generator=generator) < drop, old[which], x)
        visitor = WithinBlock(simulation, block, {rounding.weight: rounding.soft() for rounding in roundings})
        error = (run_block(simulation.model, block, x, visitor) - target[which]).square().sum() / len(which)
        loss = error / unit
        if iteration >= schedule.warm_start * schedule.iterations:
            beta = beta_at(iteration, schedule.iterations, schedule.warm_start, schedule.beta)
            for rounding in roundings:
                loss = loss + schedule.weight * undecided(rectified_sigmoid(rounding.v), beta).mean() / len(roundings)
        gradients = torch.autograd.grad(loss, [rounding.v for rounding in roundings])
        for rounding, gradient in zip(roundings, gradients, strict=True):
            rounding.v.grad = gradient
        adam.step()
    chosen = {rounding.weight: rounding.codes() for rounding in roundings}
    hard = {r.weight: (chosen[r.weight] - r.zero_point) * r.scale for r in roundings}
    return chosen if error_of_block(simulation, block, new, target, hard) < unit else plain


def _begin(simulation: Simulation, name: str, now: torch.Tensor) -> _Rounding:
    """From the float weight's fraction; drawn to the present rounding where a repair chose one."""
    encoding = integer_encoding(simulation, name)
    original = simulation.reference.tensor(name).detach()
    scale, zero_point = grid(encoding, original)
    steps = original / scale
    floor = steps.floor()
    fraction = steps - floor
    if not simulation.model.tensor(name).equal(original):
        fraction = 0.5 * fraction + 0.5 * (now - zero_point > floor).float()
    return _Rounding(name, floor, scale, encoding.format.low - zero_point, encoding.format.high - zero_point,
                     zero_point, initial(fraction).requires_grad_())


class WithinBlock(SimulationVisitor):
    """Some weights replaced, by name; the block's own result not quantized yet."""

    def __init__(self, simulation: Simulation, block: Block, weights: dict[str, torch.Tensor] | None = None):
        super().__init__(simulation)
        self.end, self.weights = block.nodes[-1].name, weights or {}

    def value(self, name: str, value: Any) -> Any:
        return value if name == self.end else super().value(name, value)

    def parameter(self, node: Node, argument: str, name: str, value: torch.Tensor) -> torch.Tensor:
        if argument == "weight" and name in self.weights:
            return self.weights[name]
        return super().parameter(node, argument, name, value)


def run_block(model: Model, block: Block, x: torch.Tensor, visitor: Visitor) -> torch.Tensor:
    """A block's result; x: what it reads."""
    values: dict[str, Any] = {block.start: x}
    for node in block.nodes:
        values[node.name] = visitor.value(node.name, model.call(node, values, visitor))
    return values[block.nodes[-1].name]


def error_of_block(simulation: Simulation, block: Block, x: torch.Tensor, target: torch.Tensor,
           weights: dict[str, torch.Tensor]) -> float:
    """Squared distance from the float block, a mean over images."""
    total = 0.0
    with torch.no_grad():
        for part, wanted in zip(x.split(64), target.split(64), strict=True):
            got = run_block(simulation.model, block, part, WithinBlock(simulation, block, weights))
            total += float((got - wanted).double().square().sum())
    return total / len(x)

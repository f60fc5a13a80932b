"""What each repair makes smaller, measured from outside: what `fewbits.testing.check_algorithm` holds it to.

An objective compares a simulation before and after a repair, on the data that the repair saw, and yields one `Part`
for each thing the repair decides by itself: a layer, a channel, a block, a chain. Layers are fed what the repaired
simulation gives them, so that each is judged by what it could know. Everything is computed anew, by the simulation's
own quantizers, from all of the data.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from fewbits.graph.model import Visitor
from fewbits.optimize.absorb import absorbed
from fewbits.optimize.brecq import Block, WithinBlock, blocks, error_of_block, run_block
from fewbits.optimize.chains import chains
from fewbits.optimize.equalize import ranges
from fewbits.optimize.evidence import Evidence, gather
from fewbits.optimize.rows import products
from fewbits.optimize.smoothquant import largest_activations, largest_column
from fewbits.optimize.walk import walk
from fewbits.quant.simulation import Simulation, SimulationVisitor


@dataclass(frozen=True)
class Part:
    """before, after: the objective of one thing a repair decides; rounding: what quantizing the decision may
    cost, 0 where the repair reckons with it."""

    name: str
    before: float
    after: float
    rounding: float = 0.0

    @property
    def is_kept(self) -> bool:
        """Whether it is not worse than before, but for float32 sums in another order."""
        return self.after <= self.before * (1 + 1e-5) + self.rounding


Objective = Callable[[Simulation, Simulation, Sequence[torch.Tensor]], Iterable[Part]]


def layer_error(before: Simulation, after: Simulation, batches: Sequence[torch.Tensor]) -> Iterator[Part]:
    """‖f(W·x) − f(W̃·x̂)‖² of each layer, f being the clamp that closes it: AdaRound's."""
    for evidence, old, new in _layers(before, after, batches):
        yield Part(evidence.layer.name, evidence.error(old), evidence.error(new))


def sum_error(before: Simulation, after: Simulation, batches: Sequence[torch.Tensor]) -> Iterator[Part]:
    """‖(W − W̃)·x̂‖² of each layer: GPTQ's."""
    for evidence, old, new in _layers(before, after, batches):
        weight = evidence.layer.matrix(before.model.tensor(evidence.layer.weight).detach())
        yield Part(evidence.layer.name, *(float(products(matrix - weight, evidence.x).double().square().sum())
                                          for matrix in (old, new)))


def channel_error(before: Simulation, after: Simulation, batches: Sequence[torch.Tensor]) -> Iterator[Part]:
    """‖W·x − W̃·x̂‖² of each output channel, or of the layer where its channels share a scale: sequential MSE's."""
    for evidence, old, new in _layers(before, after, batches):
        wanted = evidence.target - evidence.bias
        errors = [(products(matrix, evidence.x) - wanted).double().square().sum(0) for matrix in (old, new)]
        if not before.quantizer(evidence.layer.weight).scale.ndim:
            errors = [error.sum(0, keepdim=True) for error in errors]
        for channel, (one, other) in enumerate(zip(*errors, strict=True)):
            yield Part(f"{evidence.layer.name}[{channel}]", float(one), float(other))


def block_error(before: Simulation, after: Simulation, batches: Sequence[torch.Tensor]) -> Iterator[Part]:
    """Squared distance of each block's result from the float block's: block reconstruction's."""
    after = after.copy()
    after.set_mode("simulate")
    visitor, old = SimulationVisitor(after), torch.cat(list(batches))
    with torch.no_grad():
        new = visitor.value(after.model.graph.inputs[0].name, old)
    originals = after.reference.graph.by_name
    for block in blocks(after):
        same = Block(block.start, tuple(originals[node.name] for node in block.nodes))
        with torch.no_grad():
            target = run_block(after.reference, same, old, Visitor())
            weights = {p: before.quantizer(p)(before.model.tensor(p)) for node in block.nodes for p in node.params
                       if p in before.plan.sites and before.plan.sites[p].kind == "weight"}
        yield Part(block.nodes[-1].name, error_of_block(after, block, new, target, weights),
                   error_of_block(after, block, new, target, {}))
        with torch.no_grad():
            result = run_block(after.model, block, new, WithinBlock(after, block))
            old, new = target, visitor.value(block.nodes[-1].name, result)


def imbalance(before: Simulation, after: Simulation, batches: Sequence[torch.Tensor]) -> Iterator[Part]:
    """Largest |log(r¹/r²)| of each chain's channels: equalization's."""
    def of(simulation: Simulation) -> dict[str, float]:
        found = {}
        for chain in chains(simulation.model):
            first, second = (r.double() for r in ranges(simulation.model, chain))
            some = (first > 0) & (second > 0)
            found[chain.first.name] = float((first[some] / second[some]).log().abs().max()) if some.any() else 0.0
        return found

    # A float32 weight is stored to 2^-24 of itself, on either side.
    yield from _paired(of(before), of(after), rounding=2.0**-21)


def difficulty(before: Simulation, after: Simulation, batches: Sequence[torch.Tensor],
               alpha: float = 0.5) -> Iterator[Part]:
    """Largest |α·log max|x_j| − (1 − α)·log max|w_j|| of each chain's channels: SmoothQuant's."""
    def of(simulation: Simulation) -> dict[str, float]:
        found, model = chains(simulation.model), simulation.model
        result = {}
        for chain, x in zip(found, largest_activations(model, found, batches), strict=True):
            w = largest_column(model, chain)
            some = (x > 0) & (w > 0)
            unequal = (alpha * x[some].log() - (1 - alpha) * w[some].log()).abs()
            result[chain.first.name] = float(unequal.max()) if some.any() else 0.0
        return result

    # Activations are sums in float32: 1e-5 of themselves.
    yield from _paired(of(before), of(after), rounding=1e-5)


def high_bias(before: Simulation, after: Simulation, batches: Sequence[torch.Tensor]) -> Iterator[Part]:
    """Σ max(0, β − 3|γ|) of each layer that batch norm speaks of: absorption's."""
    def of(simulation: Simulation) -> dict[str, float]:
        return {name: float(absorbed(normal).sum()) for name, normal in simulation.model.predicted.items()}

    yield from _paired(of(before), of(after))


def _layers(before: Simulation, after: Simulation,
            batches: Sequence[torch.Tensor]) -> Iterator[tuple[Evidence, torch.Tensor, torch.Tensor]]:
    """All rows of each layer, its matrix before and after."""
    after = after.copy()
    for stop in walk(after, batches, "measuring"):
        name, layer = stop.layer.weight, stop.layer
        with torch.no_grad():
            old, new = (layer.matrix(sim.quantizer(name)(sim.model.tensor(name))) for sim in (before, after))
        yield gather(after, stop, 2**40, torch.Generator()), old, new


def _paired(before: dict[str, float], after: dict[str, float], rounding: float = 0.0) -> Iterator[Part]:
    assert before.keys() == after.keys(), "the two simulations have different parts"
    yield from (Part(name, before[name], after[name], rounding) for name in before)

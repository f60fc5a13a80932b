"""Repairs that a recipe names, applied in an order in which each keeps the gain of the one before.

First what changes the float model (ranges are found anew behind it), then the weights' scales, then their rounding, and
at last the biases, which take off what all the others left of a mean error.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from fewbits.errors import RepairError, RepairWarning
from fewbits.graph.model import Model
from fewbits.optimize.absorb import absorb_high_biases
from fewbits.optimize.adaround import adaround
from fewbits.optimize.bias_correction import correct_biases
from fewbits.optimize.brecq import reconstruct_blocks
from fewbits.optimize.chains import chains
from fewbits.optimize.equalize import equalize
from fewbits.optimize.gptq import gptq
from fewbits.optimize.sequential_mse import sequential_mse
from fewbits.optimize.smoothquant import smooth
from fewbits.program.inputs import Batch, bind
from fewbits.program.profile import ONNXRUNTIME, Profile
from fewbits.program.program import leaves
from fewbits.quant.calibrate import BatchToInputs, calibrate
from fewbits.quant.plan import Plan
from fewbits.quant.recipe import RepairName
from fewbits.quant.simulation import Simulation

MOST, FEWEST = 256, 16
"""Inputs that a repair which works layer by layer looks at. It keeps all of them, and runs each twice."""
_ELEMENTS = 2**26  # of the values alive at once, for all inputs together: 256 MiB, and as much for the simulation


@dataclass(frozen=True)
class Repair:
    """make: of a simulation and batches; ranges_anew: whether it calibrates anew, and so needs every batch; chained:
    whether it works on two layers in a chain, and so has nothing to do where there are none."""

    make: Callable[..., Simulation]
    ranges_anew: bool = False
    chained: bool = False


REPAIRS: Mapping[RepairName, Repair] = MappingProxyType({
    "equalization": Repair(equalize, ranges_anew=True, chained=True),
    "high-bias-absorption": Repair(absorb_high_biases, ranges_anew=True, chained=True),
    "smoothing": Repair(smooth, ranges_anew=True, chained=True),
    "sequential-mse": Repair(sequential_mse),
    "gptq": Repair(gptq),
    "adaround": Repair(adaround),
    "block-reconstruction": Repair(reconstruct_blocks),
    "bias-correction": Repair(correct_biases),
})
"""In the order in which they are made."""


def calibrate_and_repair(model: Model, plan: Plan, batches: Iterable[Batch] = (), *, profile: Profile = ONNXRUNTIME,
                         batch_to_inputs: BatchToInputs = None) -> Simulation:
    """`calibrate`, and then the repairs that the plan names.

    profile: whose rounding the repairs see; batches: as for `calibrate`; of a one-shot iterator the first ones are kept
    for the repairs. Raises RepairError for one where a repair needs all of them again, and as each repair does.
    """
    again = [name for name in plan.repairs if REPAIRS[name].ranges_anew]
    once = iter(batches) is batches
    if once and again:
        raise RepairError(f"{again[0]} finds the ranges anew, from all batches: give a list or a loader, not a "
                          "one-shot iterator")
    kept = _Kept(batches, inputs_to_repair_on(model), batch_to_inputs, model) if once and plan.repairs else None
    simulation = calibrate(model, plan, batches if kept is None else kept, batch_to_inputs=batch_to_inputs)
    simulation.follow(profile)
    if kept is not None and not plan.needs_data:  # calibration had no need of them
        for _ in kept:
            pass
    return repair(simulation, batches if kept is None else kept.first, batch_to_inputs=batch_to_inputs)


def repair(simulation: Simulation, batches: Iterable[Batch], *, batch_to_inputs: BatchToInputs = None) -> Simulation:
    """The simulation with the repairs made that its plan names and that were not made yet (`plan.repairs`), each kept
    only where it does not make the outputs worse.

    batches: re-iterable; repairs that work layer by layer look at the first 256 inputs, or fewer
    where the network is wide (`inputs_to_repair_on`).
    Warns (RepairWarning) where a repair would make the outputs worse or has nothing to do; raises as the repairs do.
    """
    wanted = simulation.plan.repairs
    if not wanted:
        return simulation
    some = _first(batches, inputs_to_repair_on(simulation.model), batch_to_inputs, simulation.model)
    for name in wanted:
        chosen = REPAIRS[name]
        if chosen.chained and not chains(simulation.model):
            warnings.warn(f"{name} finds no two layers in a chain, and does nothing", RepairWarning, stacklevel=2)
            continue
        simulation = chosen.make(simulation, batches if chosen.ranges_anew else some, batch_to_inputs=batch_to_inputs)
    simulation.plan = replace(simulation.plan, repairs=())
    return simulation


def inputs_to_repair_on(model: Model) -> int:
    """How many inputs a layer-wise repair looks at: 256, or fewer where a network is wide, 16 at least. A batch is
    taken whole."""
    return max(FEWEST, min(MOST, _ELEMENTS // max(_widest(model), 1)))


def _widest(model: Model) -> int:
    """Elements of all values alive at the widest place, for one input. A size that moves with the batch counts 1."""
    sizes = {name: _elements(shape) for name, shape in model.shapes().items()}
    wanted = set(leaves(model.graph.structure))
    last = {name: number for number, node in enumerate(model.graph.nodes) for name in node.refs}
    alive = {item.name for item in model.graph.inputs}
    widest = 0
    for number, node in enumerate(model.graph.nodes):
        alive.add(node.name)
        widest = max(widest, sum(sizes.get(name, 0) for name in alive))
        alive = {name for name in alive if name in wanted or last.get(name, -1) > number}
    return widest


def _elements(shape: tuple[int | None, ...] | None) -> int:
    count = 1
    for size in shape or ():
        count *= 1 if size is None else size
    return count


def _first(batches: Iterable[Batch], count: int, batch_to_inputs: BatchToInputs, model: Model) -> list[Batch]:
    """The first batches, whole, until they hold so many inputs."""
    found: list[Batch] = []
    for batch in batches:
        found.append(batch)
        count -= _inputs(model, batch, batch_to_inputs)
        if count <= 0:
            break
    return found


def _inputs(model: Model, batch: Batch, batch_to_inputs: BatchToInputs) -> int:
    """How many a batch holds. Raises DataError as `bind` does."""
    tensors = bind([item.name for item in model.graph.inputs], batch, batch_to_inputs)
    return max(1, len(next(iter(tensors.values()))))


class _Kept(Iterable[Batch]):
    """Hands batches on and keeps the first ones, whole, until they hold so many inputs."""

    def __init__(self, batches: Iterable[Batch], count: int, batch_to_inputs: BatchToInputs, model: Model):
        self.first: list[Batch] = []
        self._batches, self._left, self._to_inputs, self._model = batches, count, batch_to_inputs, model

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield batch
            if self._left > 0:  # behind the yield: what calibration refuses, it refuses with the batch's number
                self.first.append(batch)
                self._left -= _inputs(self._model, batch, self._to_inputs)

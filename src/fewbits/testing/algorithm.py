"""What every repair of a simulation promises."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load, save

from fewbits.errors import RepairError
from fewbits.graph.capture import capture
from fewbits.graph.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import plan
from fewbits.quant.simulation import Simulation
from fewbits.testing.compared import bytes_of, distance
from fewbits.testing.engines import differences
from fewbits.testing.random_networks import random_network


def check_algorithm(algorithm: Callable[..., Simulation], *, recipe: str = "w4a8", keeps_float: bool = True,
                    resumable: bool = False, slack: float = 0.1, seeds: Iterable[int] = range(3)) -> None:
    """Raises AssertionError, naming the network's seed, unless a repair keeps what every repair promises.

    algorithm: called with a Simulation and batches (and `checkpoint`, a path, where it is resumable); RepairError
    on a network that gives it nothing to do is no failure. On random networks it must: leave the simulation it is
    given as it was; leave the float function unchanged (keeps_float); give the same bytes twice; give the same bytes
    when it goes on from a file that holds half of the layers; not move the output further from the float one on
    the calibration data, beyond a share `slack`; and lower to a program on which no engine differs.
    """
    for seed in seeds:
        net, example = random_network(seed)
        generator = torch.Generator().manual_seed(seed)
        batches = [example, *(example[:, :, torch.randperm(example.shape[2], generator=generator)] * share
                              for share in (1, 0.7))]
        model = fold(capture(net, example))
        simulation = calibrate(model, plan(model, recipe), batches)
        before = bytes_of(simulation)
        try:
            repaired = algorithm(simulation, batches)
        except RepairError:
            continue
        assert bytes_of(simulation) == before, f"network {seed}: the simulation it was given has changed"
        assert bytes_of(algorithm(simulation, batches)) == bytes_of(repaired), f"network {seed}: two runs differ"
        if keeps_float:
            change, size = distance(repaired.reference, simulation.reference, batches)
            assert change <= 1e-8 * size, f"network {seed}: the float function has changed"
        was, size = distance(simulation, simulation.reference, batches)
        now, _ = distance(repaired, simulation.reference, batches)
        assert now <= (1 + slack) * was + 1e-10 * size, f"network {seed}: error {now:.3g} from {was:.3g}"
        wrong = differences(lower(repaired), {item.name: x.numpy() for item, x in zip(
            model.graph.inputs, [batches[0]], strict=True)})
        assert not wrong, f"network {seed}: {wrong[0]}"
        if resumable:
            assert bytes_of(_resumed(algorithm, simulation, batches)) == bytes_of(repaired), \
                f"network {seed}: going on from half-way gives other bytes"


def _resumed(algorithm: Callable[..., Simulation], simulation: Simulation, batches: list[torch.Tensor]) -> Simulation:
    """The result when only the first half of the layers was on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        algorithm(simulation, batches, checkpoint=path)
        kept = load(path.read_bytes())
        layers = [p for node in simulation.model.graph.nodes for p in node.params if p in kept]
        path.write_bytes(save({"fingerprint": kept["fingerprint"]}
                              | {name: kept[name] for name in layers[:len(layers) // 2]}))
        return algorithm(simulation, batches, checkpoint=path)

"""What every repair of a simulation promises."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import RepairError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.options import options_checked
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.simulation import Simulation
from fewbits.testing.compared import bytes_of, distance
from fewbits.testing.engines import differences
from fewbits.testing.objectives import Objective
from fewbits.testing.random_networks import random_network

Network = Callable[[int], tuple[nn.Module, torch.Tensor]]
"""From a seed, a network in evaluation mode and a batch of images for it."""


@options_checked
def check_algorithm(algorithm: Callable[..., Simulation], objective: Objective | None, *, recipe: str = "w4a8",
                    norms: Literal["fold", "keep"] = "fold", keeps_float: bool = True, resumable: bool = True,
                    network: Network = random_network, seeds: Iterable[int] = range(3)) -> int:
    """Raises AssertionError, naming the network's seed, unless a repair keeps what every repair promises; returns on
    how many networks it was tried.

    algorithm: called with a Simulation and batches (and `checkpoint`, a path, where it is resumable); RepairError
    on a network that gives it nothing to do is no failure. objective: what it makes smaller (testing/objectives.py);
    None where nothing can be promised; network: random ones, or such as give the repair more to do. It must: leave the
    simulation it is given as it was; leave the float function unchanged (keeps_float); give the same bytes twice; give
    the same bytes when it goes on after an interruption, at the first write of its checkpoint and half-way; make no
    part of its objective worse on the calibration data; and lower to a program on which no engine differs.
    """
    tried = 0
    for seed in seeds:
        net, example = network(seed)
        generator = torch.Generator().manual_seed(seed)
        batches = [example, *(example[:, :, torch.randperm(example.shape[2], generator=generator)] * share
                              for share in (1, 0.7))]
        model = fold(capture(net, example), norms)
        simulation = calibrate(model, plan(model, recipe), batches)
        before = bytes_of(simulation)
        try:
            repaired = algorithm(simulation, batches)
        except RepairError:
            continue
        tried += 1
        assert bytes_of(simulation) == before, f"network {seed}: the simulation it was given has changed"
        assert bytes_of(algorithm(simulation, batches)) == bytes_of(repaired), f"network {seed}: two runs differ"
        if keeps_float:
            change, size = distance(repaired.reference, simulation.reference, batches)
            assert change <= 1e-8 * size, f"network {seed}: the float function has changed"
        worse = [part for part in objective(simulation, repaired, batches) if not part.is_kept] if objective else []
        assert not worse, f"network {seed}: its objective is worse than before at {worse[0]}"
        wrong = differences(lower(repaired), {item.name: x.numpy() for item, x in zip(
            model.graph.inputs, [batches[0]], strict=True)})
        assert not wrong, f"network {seed}: {wrong[0]}"
        if resumable:
            for writes, result in _resumed(algorithm, simulation, batches):
                assert bytes_of(result) == bytes_of(repaired), \
                    f"network {seed}: going on after {writes} writes gives other bytes"
    return tried


def _resumed(algorithm: Callable[..., Simulation], simulation: Simulation,
             batches: list[torch.Tensor]) -> Iterator[tuple[int, Simulation]]:
    """(writes, result) of runs that were interrupted after so many writes of their checkpoint, and begun again."""
    with tempfile.TemporaryDirectory() as folder:
        with _interrupted_after(None) as written:
            algorithm(simulation, batches, checkpoint=Path(folder) / "whole")
        assert written, "no checkpoint was ever written"
        for writes in sorted({1, (len(written) + 1) // 2}):
            path = Path(folder) / f"after {writes}"
            with suppress(KeyboardInterrupt), _interrupted_after(writes):
                algorithm(simulation, batches, checkpoint=path)
            yield writes, algorithm(simulation, batches, checkpoint=path)


@contextmanager
def _interrupted_after(writes: int | None) -> Iterator[list[str]]:
    """Stops the work behind so many writes of a checkpoint, as a person at the keyboard does; yields their names."""
    names: list[str] = []
    add = Checkpoint.add

    def watched(self: Checkpoint, tensors: Mapping[str, torch.Tensor]) -> None:
        add(self, tensors)
        names.append(next(iter(tensors), ""))
        if len(names) == writes:
            raise KeyboardInterrupt

    with patch.object(Checkpoint, "add", watched):
        yield names

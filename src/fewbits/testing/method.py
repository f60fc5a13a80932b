"""What every method of training in few bits promises."""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import Simulation
from fewbits.report.simulation_gap import simulation_gap
from fewbits.testing.compared import bytes_of
from fewbits.testing.engines import differences
from fewbits.train.after_training import calibrate_activations
from fewbits.train.fit import Adam, fit
from fewbits.train.registry import trainable


def check_method(recipe: str | Path | Recipe, *, seed: int = 0) -> None:
    """Raises AssertionError unless what a recipe's methods learn keeps what every method promises.

    On a small network with live batch norm, three steps of training must: change something; leave the simulation they
    started from as it was; give the same bytes twice, and again when they go on from a checkpoint after an
    interruption; come back whole from a state dict and as a deep copy; leave nothing behind when moved to another
    device (meta); and lower to a program of integers on which no engine differs, and whose codes the simulation
    predicts.
    """
    net, x, labels = _learner(seed)
    model = fold(capture(net, x), norms="keep")
    simulation = calibrate(model, plan(model, recipe), [x])
    before, batches = bytes_of(simulation), [(x, labels), (x.flip(0), labels.flip(0)), (0.9 * x, labels)]

    def learned(batches: Any = batches, into: Simulation | None = None, **options: Any) -> Simulation:
        learning = into or trainable(simulation)
        fit(learning, batches, epochs=1, optimizer=Adam(1e-2), seed=seed, quiet=True, **options)
        return learning

    result = learned()
    after = bytes_of(result)
    assert bytes_of(simulation) == before, "the simulation it started from has changed"
    assert after != bytes_of(trainable(simulation)), "nothing was learned"
    assert bytes_of(learned()) == after, "two trainings differ"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        with suppress(KeyboardInterrupt):
            learned(_Interrupted(batches), checkpoint=path, save_every=1)
        assert bytes_of(learned(checkpoint=path)) == after, "going on from a checkpoint gives other bytes"
    again = trainable(simulation)
    again.load_state_dict(result.state_dict())
    again.eval()
    with torch.no_grad():
        y = result(x)
        assert torch.equal(again(x), y), "a state dict does not bring it back"
        assert torch.equal(copy.deepcopy(result)(x), y), "a deep copy gives other numbers"
    moved = copy.deepcopy(result).to("meta")
    assert all(tensor.is_meta for tensor in moved.state_dict().values()), "something stayed behind on its device"
    result = calibrate_activations(result, [x])
    program = lower(result)
    wrong = differences(program, {program.inputs[0]: x.numpy()})
    assert not wrong, str(wrong[0])
    gap = simulation_gap(program, result, [x])
    assert gap.differing <= 2 + gap.compared // 1000, f"the simulation predicts other codes: {gap}"


class _Interrupted(list[Any]):
    """Batches that stop after the second, as a person at the keyboard does."""

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(list.__iter__(self)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch


def _learner(seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Hardtanh(0, 1), nn.MaxPool2d(2),
                            nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
                            nn.Linear(96, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))
        net(torch.randn(16, 2, 8, 8))  # statistics of its own
        return net.eval(), torch.randn(16, 2, 8, 8), torch.arange(16) % 4

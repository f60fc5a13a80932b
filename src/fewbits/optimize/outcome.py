"""Effect of a repair on the outputs, measured on its data; the repair is undone where they became worse.

Every repair makes something smaller that is not the error of the outputs: an imbalance of ranges, a layer's error, a
shift of means. Mostly the outputs follow; where they do not, the model that was there is the better one.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from fewbits.errors import RepairError, RepairWarning
from fewbits.program.inputs import Batch
from fewbits.quant.calibrate import BatchToInputs, model_inputs
from fewbits.quant.simulation import Simulation

TOLERATED = 0.1
"""dB by which outputs may become worse: a few images tell no less."""



def check_reread(batches: Iterable[Batch], repair: str, even_if_worse: bool) -> None:
    """Raises RepairError for a one-shot iterator, unless nobody will look at the outputs."""
    if not even_if_worse and iter(batches) is batches:
        raise RepairError(f"{repair} reads the batches again, to see what it did to the outputs: give a list or a "
                          "loader, not a one-shot iterator, or say even_if_worse=True")


def unless_worse(before: Simulation, after: Simulation, batches: Iterable[Batch], repair: str, even_if_worse: bool,
                 batch_to_inputs: BatchToInputs = None, seen: Sequence[tuple[Any, Any]] | None = None) -> Simulation:
    """`after`; or a copy of `before`, with a RepairWarning that says so, where the outputs of `after` on the batches
    are more than 0.1 dB farther from the float network's. even_if_worse: `after` without a look at them; seen: the
    outputs of the float network and of `after` for each batch, where the repair has them already."""
    if even_if_worse:
        return after
    was, now = (_until_certain(before, batches, batch_to_inputs, seen) if seen
                else sqnr_of_outputs((before, after), batches, batch_to_inputs))
    if not now < was - TOLERATED:
        return after
    warnings.warn(f"{repair} makes the outputs worse on the calibration data, {now:.1f} dB in place of {was:.1f}: the "
                  "model stays as it was (even_if_worse=True changes it all the same)", RepairWarning, stacklevel=3)
    return before.copy()


def sqnr_of_outputs(simulations: tuple[Simulation, ...], batches: Iterable[Batch],
                    batch_to_inputs: BatchToInputs = None) -> list[float]:
    """dB of each simulation's outputs against the float network, the reference of the first: every output counts by
    its error's share of its own energy, so that none drowns in a larger one."""
    found = [_Energies() for _ in simulations]
    with torch.no_grad():
        for batch in batches:
            inputs = model_inputs(simulations[0].model, batch, batch_to_inputs)
            wanted = _tensors(simulations[0].reference.run(inputs))
            for energies, simulation in zip(found, simulations, strict=True):
                energies.add(wanted, _tensors(simulation.run(inputs)))
    return [energies.decibels for energies in found]


def _until_certain(before: Simulation, batches: Iterable[Batch], batch_to_inputs: BatchToInputs,
                   seen: Sequence[tuple[Any, Any]]) -> tuple[float, float]:
    """dB of `before` and of what was made of it, whose outputs are in `seen` beside the float network's.

    `before` runs until its error, which only grows, shows that its dB are not more than 0.1 above; on all batches, and
    its dB are exact, where they are."""
    after, so_far = _Energies(), _Energies()
    for wanted, got in seen:
        after.add(_tensors(wanted), _tensors(got))
    with torch.no_grad():
        for (wanted, _), batch in zip(seen, batches, strict=True):
            so_far.add(_tensors(wanted), _tensors(before.run(model_inputs(before.model, batch, batch_to_inputs))))
            if not after.decibels < _Energies(after.signal, so_far.noise).decibels - TOLERATED:
                break
    return _Energies(after.signal, so_far.noise).decibels, after.decibels


class _Energies:
    """Of float outputs and of their errors, each output by itself."""

    def __init__(self, signal: np.ndarray | None = None, noise: np.ndarray | None = None):
        self.signal, self.noise = (np.zeros(0) if part is None else part for part in (signal, noise))

    def add(self, wanted: list[torch.Tensor], got: list[torch.Tensor]) -> None:
        signal = np.array([_energy(right) for right in wanted])
        noise = np.array([_energy(left - right) for left, right in zip(got, wanted, strict=True)])
        self.signal, self.noise = (signal, noise) if not self.signal.size else (self.signal + signal,
                                                                                self.noise + noise)

    @property
    def decibels(self) -> float:
        """Of the mean share of the error; 0 where there is no signal."""
        some = self.signal > 0
        share = float((self.noise[some] / self.signal[some]).mean()) if some.any() else 1.0
        return -10 * float(np.log10(max(share, 1e-30))) if np.isfinite(share) else -np.inf


def _tensors(outputs: Any) -> list[torch.Tensor]:
    return [leaf.double() for leaf in pytree.tree_leaves(outputs)
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _energy(x: torch.Tensor) -> float:
    return float(x.square().sum())

"""SmoothQuant: wide activation channels made narrower at the cost of the weights that read them.

s_j = max|x_j|^α / max|w_j|^(1−α): the layer before is divided by s, the weights behind are multiplied by it. Where
no layer stands before (an addition, an input), there is nothing to divide and the layer stays as it is.
Source: Xiao et al. 2022, arXiv:2211.10438, eq. 4.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewbits.errors import RepairError
from fewbits.graph.model import Model, Visitor
from fewbits.numerics.block import Block
from fewbits.optimize.chains import Chain, chains, columns, rescale
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.optimize.outcome import unless_worse
from fewbits.optimize.recalibrated import model_to_rescale, recalibrated
from fewbits.program.inputs import Batch
from fewbits.progress import track
from fewbits.quant.calibrate import model_inputs
from fewbits.quant.simulation import Simulation
from fewbits.ranges.observer import MinMax


def smooth(simulation: Simulation, batches: Iterable[Batch], *, alpha: float = 0.5,
           even_if_worse: bool = False, checkpoint: str | Path | None = None,
           batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation of the rescaled model, calibrated on `batches` (read twice, so re-iterable).

    alpha: how much of the difficulty moves to the weights, 0 to 1; even_if_worse: as for `equalize`; checkpoint: a file
    that keeps the ranges seen and the encodings found. Raises RepairError after repairs that round weights.
    """
    if not 0 <= alpha <= 1:
        raise RepairError(f"alpha lies between 0 and 1, not at {alpha:g}")
    if iter(batches) is batches:
        raise RepairError("smooth reads the batches twice: give a list or a loader, not a one-shot iterator")
    model = model_to_rescale(simulation, "smooth")
    kept = Checkpoint.open(checkpoint, simulation, f"smooth {alpha}", batches)
    found = chains(model)
    # The last chain first: what a chain does to the rows of its first layer changes that layer's columns, which the
    # chain before it looks at; so each is balanced in the end.
    for chain, activation in zip(reversed(found), reversed(_watched(model, found, kept.batches, kept, batch_to_inputs)),
                                 strict=True):
        rescale(model, chain, smoothing(activation, largest_column(model, chain), alpha))
    return unless_worse(simulation, recalibrated(model, simulation.plan, kept.batches, kept, batch_to_inputs),
                        kept.batches, "smooth", even_if_worse, batch_to_inputs)


def largest_column(model: Model, chain: Chain) -> torch.Tensor:
    """max|w_j| of the weights that read each channel, float64 [channels]."""
    return columns(model, chain).detach().abs().amax((1, 3)).reshape(-1).double()


def largest_activations(model: Model, found: Sequence[Chain], batches: Iterable[Batch],
                        batch_to_inputs: Callable[[Any], Any] | None = None) -> list[torch.Tensor]:
    """max|x_j| of what the second layer of each chain reads, float64 [channels]."""
    seen = _Ranges(found)
    with torch.no_grad():
        for batch in track(batches, "watching channels"):
            model.run(model_inputs(model, batch, batch_to_inputs), seen)
    return [seen.largest(chain, len(largest_column(model, chain))) for chain in found]


def _watched(model: Model, found: Sequence[Chain], batches: Iterable[Batch], kept: Checkpoint,
             batch_to_inputs: Callable[[Any], Any] | None) -> list[torch.Tensor]:
    names = [f"{chain.second.name} activations" for chain in found]
    if not all(name in kept for name in names):
        kept.add(dict(zip(names, seen := largest_activations(model, found, batches, batch_to_inputs), strict=True)))
        return seen
    return [kept.take(name, torch.zeros(len(largest_column(model, chain)), dtype=torch.float64))
            for name, chain in zip(names, found, strict=True)]


def smoothing(activation: torch.Tensor, weight: torch.Tensor, alpha: float) -> torch.Tensor:
    """s, float64 [channels]; 1 where a channel or its weights are 0."""
    usable = (activation > 0) & (weight > 0)
    ones = torch.ones_like(weight)
    return torch.where(usable, torch.where(usable, activation, ones) ** alpha
                       / torch.where(usable, weight, ones) ** (1 - alpha), ones)


class _Ranges(Visitor):
    """Largest magnitude of each channel of what each chain's second layer reads."""

    def __init__(self, found: Sequence[Chain]):
        self._observers = {chain.second["input"].name: MinMax(Block((-1, 1))) for chain in found}
        self._axes = {chain.second["input"].name: 1 if chain.second.op == "conv" else -1 for chain in found}
        """The axis of the channels that a layer reads: 1 of a convolution over any number of axes, the last of a
        linear layer over any number of rows."""

    def value(self, name: str, value: Any) -> Any:
        if name in self._observers:
            rows = value.movedim(self._axes[name], -1)
            self._observers[name].update(rows.reshape(-1, rows.shape[-1]))
        return value

    def largest(self, chain: Chain, channels: int) -> torch.Tensor:
        """float64 [channels]; a flattened channel is as wide as its widest number."""
        low, high = self._observers[chain.second["input"].name].extremes()
        return torch.from_numpy(np.maximum(-low, high).reshape(channels, -1).max(1))

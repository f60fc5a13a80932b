"""Cross-layer equalization: channels rescaled until each is as wide on both sides of its chain.

s_i = √(r¹_i·r²_i)/r²_i, with r¹_i the largest |weight| of output channel i of the first layer and r²_i that of
input channel i of the second: both become √(r¹_i·r²_i). Repeated over all chains until nothing moves, so that
chains of more than two layers (depthwise ones) even out as a whole. The float model computes the same as before.
Source: Nagel et al. 2019, arXiv:1906.04721, §4.1.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewbits.errors import RepairError
from fewbits.graph.model import Model
from fewbits.graph.operators import aten, bounds
from fewbits.optimize.chains import Chain, chains, columns, rescale
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.optimize.outcome import check_reread, unless_worse
from fewbits.optimize.recalibrated import model_to_rescale, recalibrated
from fewbits.program.inputs import Batch
from fewbits.progress import track
from fewbits.quant.simulation import Simulation

_ROUNDS = 200
_CONVERGED = 1e-6  # of log s


def scales(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """s, float64 [channels], from the ranges r¹ and r² of each channel; 1 where a range is 0."""
    first, second = first.double(), second.double()
    usable = (first > 0) & (second > 0)
    return torch.where(usable, (first / torch.where(usable, second, 1.0)).sqrt(), 1.0)


def ranges(model: Model, chain: Chain) -> tuple[torch.Tensor, torch.Tensor]:
    """(r¹, r²) of a chain, float32 [channels]."""
    first = model.tensor(chain.first["weight"].name).detach()
    second = columns(model, chain).detach()
    return first.reshape(first.shape[0], -1).abs().amax(1), second.abs().amax((1, 3)).reshape(-1)


def equalize(simulation: Simulation, batches: Iterable[Batch], *, unbound: bool = False, even_if_worse: bool = False,
             checkpoint: str | Path | None = None,
             batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation of the equalized model, calibrated on `batches`.

    unbound: first replace every ReLU6-like clamp that stands in a chain by a ReLU. That lets its channels be rescaled
    but is another function wherever the bound was reached (as in the paper). checkpoint: a file that keeps the
    encodings found. even_if_worse: also where the outputs on the batches become worse by it (optimize/outcome.py).
    Raises RepairError after repairs that round weights: equalize before them.
    """
    check_reread(batches, "equalize", even_if_worse)
    model = model_to_rescale(simulation, "equalize")
    kept = Checkpoint.open(checkpoint, simulation, f"equalize {unbound}", batches)
    if unbound:
        _replace_bounded(model)
    found = chains(model)
    if not found:
        raise RepairError("equalize found no two layers in a chain: no value with one reader leads from one to another")
    for _ in track(range(_ROUNDS), "equalizing"):
        moved = 0.0
        for chain in found:
            scale = scales(*ranges(model, chain))
            moved = max(moved, float(scale.log().abs().max()))
            rescale(model, chain, scale)
        if moved < _CONVERGED:
            break
    return unless_worse(simulation, recalibrated(model, simulation.plan, kept.batches, kept, batch_to_inputs),
                        kept.batches, "equalize", even_if_worse, batch_to_inputs)


def _replace_bounded(model: Model) -> None:
    """Makes clamps to [0, bound] ReLUs where both neighbours are layers."""
    graph = model.graph
    readers = graph.consumers
    nodes = []
    for node in graph.nodes:
        low, high = bounds(node)
        before = graph.by_name.get(node.refs[0]) if node.refs else None
        alone = len(readers[node.name]) == 1 and before is not None and len(readers[before.name]) == 1
        if low == 0 and math.isfinite(high) and alone and before is not None and all(
                n.op in ("conv", "linear") for n in (before, readers[node.name][0])):
            node = replace(node, target=aten.relu.default, positional=1,
                           arguments={"self": next(iter(node.arguments.values()))})
        nodes.append(node)
    model.graph = graph.with_nodes(tuple(nodes))

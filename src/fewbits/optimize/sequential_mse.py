"""Sequential MSE: each layer's weight scales shrunk to what its output asks for.

For every block of a weight, the scale s·a with a in (0, 1] that minimises ‖W·x − Q(W)·x̂‖², x from the float
network and x̂ from the layers already settled: what is clipped is weighed by the data it meets, not by its own
size as in the range rule `mse`. Output channels do not meet in a sum, so each takes its own best. Source: AIMET's
SeqMSE; the objective is that of Nagel et al. 2020, arXiv:2004.10568, eq. 15, before rounding is learned.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewbits.errors import RepairError
from fewbits.numerics.encoding import Encoding
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.optimize.evidence import Evidence, gather
from fewbits.optimize.layer import has_codes
from fewbits.optimize.outcome import check_reread, unless_worse
from fewbits.optimize.rounding import integer_encoding, nearest, numbers
from fewbits.optimize.rows import products
from fewbits.optimize.walk import walk
from fewbits.program.inputs import Batch
from fewbits.quant.simulation import LARGEST_BIAS, Simulation

_SHARES = np.linspace(1.0, 0.3, 36)
_ROWS = 8192


def sequential_mse(simulation: Simulation, batches: Iterable[Batch], *, seed: int = 0,
                   even_if_worse: bool = False, checkpoint: str | Path | None = None,
                   batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation with other weight scales, never worse for any channel on the rows looked at.

    Weights must be symmetric, per tensor or per output channel (RepairError otherwise). Comes before repairs that
    round weights. even_if_worse: as for `equalize`.
    """
    check_reread(batches, "sequential_mse", even_if_worse)
    if simulation.is_repaired:
        raise RepairError("sequential_mse must come before repairs that round weights: it changes their scales")
    repaired = simulation.to_repair()
    kept = Checkpoint.open(checkpoint, repaired, f"sequential_mse {seed}", batches)
    for number, stop in enumerate(walk(repaired, kept.batches, "choosing scales", batch_to_inputs)):
        if not has_codes(repaired, stop.layer.weight):
            continue
        name = stop.layer.weight
        quantizer = repaired.quantizer(name)
        old = quantizer.encoding
        if name in kept:
            scale = kept.take(name, torch.from_numpy(old.scale.copy())).numpy()
        else:
            integer_encoding(repaired, name)
            if old.zero_point.any() or old.block.sizes not in ((), (1,)):
                raise RepairError(f"weight {name!r} is {quantizer.spec}: sequential_mse needs symmetric weights per "
                                  "tensor or channel")
            generator = torch.Generator().manual_seed(seed * 100_003 + number)
            floor = _smallest(repaired, stop.layer.name, old)
            scale = best_scales(repaired, gather(repaired, stop, _ROWS, generator), old, floor)
            kept.add({name: torch.from_numpy(scale.copy())})
        quantizer.encoding = Encoding(old.format, scale, old.zero_point, old.block)
    return unless_worse(simulation, repaired, kept.batches, "sequential_mse", even_if_worse, batch_to_inputs)


def best_scales(simulation: Simulation, evidence: Evidence, old: Encoding, floor: np.ndarray) -> np.ndarray:
    """float32, shape of old.scale: the share of it with the least output error, but nothing below `floor`."""
    layer = evidence.layer
    weight = simulation.model.tensor(layer.weight).detach()
    wanted = evidence.target - evidence.bias
    best, least = old.scale.copy(), np.full(old.scale.shape, np.inf)
    for share in _SHARES:
        scale = np.maximum((old.scale * share).astype(np.float32), np.minimum(floor, old.scale).astype(np.float32))
        encoding = Encoding(old.format, scale, old.zero_point, old.block)
        matrix = layer.matrix(numbers(encoding, nearest(encoding, weight)))
        error = (products(matrix, evidence.x) - wanted).square().double().mean(0).numpy()
        error = error.reshape(old.scale.shape) if old.scale.size == error.size and old.scale.ndim else error.sum()
        better = error < least
        best, least = np.where(better, scale, best), np.where(better, error, least)
    return best


def _smallest(simulation: Simulation, layer: str, old: Encoding) -> np.ndarray:
    """The scale below which a bias would not fit the accumulator (calibration makes sure that it does)."""
    node = simulation.model.graph.by_name[layer]
    if node["bias"] is None or not has_codes(simulation, simulation.plan.grid(node["input"].name)):
        return np.zeros(old.scale.shape)
    bias = simulation.model.tensor(node["bias"].name).detach().double().abs().cpu().numpy()
    x_scale = float(simulation.quantizer(simulation.plan.grid(node["input"].name)).scale)
    needed = bias / (x_scale * LARGEST_BIAS)
    return needed.reshape(old.scale.shape) if old.scale.size == needed.size and old.scale.ndim else \
        np.full(old.scale.shape, needed.max())

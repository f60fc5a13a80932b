"""GPTQ: weights rounded one input at a time, the ones not yet rounded making up for the error.

With H = Σ x̂·x̂ᵀ (+ damping) and U the upper Cholesky factor of H⁻¹, for each input j: e = (w_j − q_j)/U_jj, and
w_k −= e·U_jk for k > j. Scales are fixed before. Convolutions are matrices over their patches, one for each group.
Source: Frantar et al. 2022, arXiv:2210.17323, algorithm 1 (inputs in their stored order or by falling H_jj).
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from fewbits.numerics import affine
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.optimize.evidence import Evidence, gather
from fewbits.optimize.layer import has_codes
from fewbits.optimize.outcome import check_reread, unless_worse
from fewbits.optimize.rounding import grid, integer_encoding, nearest, numbers, write_codes
from fewbits.optimize.rows import products
from fewbits.optimize.walk import walk
from fewbits.program.inputs import Batch
from fewbits.quant.simulation import Simulation

_ROWS = 16384


def gptq(simulation: Simulation, batches: Iterable[Batch], *, damping: float = 0.01, by_size: bool = True,
         seed: int = 0, even_if_worse: bool = False, checkpoint: str | Path | None = None,
         batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation with its weights rounded by GPTQ, layer by layer on the simulated input.

    damping: share of the mean of H's diagonal added to it; by_size: inputs in order of falling H_jj. A layer keeps
    nearest rounding where the result is not nearer to its unrounded sums on the same input. checkpoint: as for
    adaround; even_if_worse: as for `equalize`.
    """
    check_reread(batches, "gptq", even_if_worse)
    repaired = simulation.to_repair()
    kept = Checkpoint.open(checkpoint, repaired, f"gptq {damping} {by_size} {seed}", batches)
    for number, stop in enumerate(walk(repaired, kept.batches, "rounding by GPTQ", batch_to_inputs)):
        if not has_codes(repaired, stop.layer.weight):
            continue
        name = stop.layer.weight
        if name not in kept:
            generator = torch.Generator().manual_seed(seed * 100_003 + number)
            codes = round_layer(repaired, gather(repaired, stop, _ROWS, generator), damping, by_size)
            kept.add({name: codes})
            write_codes(repaired, name, codes)
        else:
            write_codes(repaired, name, kept.codes(repaired, name))
    return unless_worse(simulation, repaired, kept.batches, "gptq", even_if_worse, batch_to_inputs)


def round_layer(simulation: Simulation, evidence: Evidence, damping: float, by_size: bool) -> torch.Tensor:
    """The codes of one layer's weight, float32; those of nearest rounding unless others are better."""
    layer = evidence.layer
    weight = simulation.model.tensor(layer.weight).detach()
    format = simulation.quantizer(layer.weight).spec.format
    encoding = integer_encoding(simulation, layer.weight)
    scale, zero_point = (layer.matrix(v).double() for v in grid(encoding, weight))
    matrix = layer.matrix(weight).double()
    codes = torch.stack([round_matrix(matrix[g], evidence.x[:, g], scale[g], zero_point[g], format.low, format.high,
                                      damping, by_size) for g in range(len(matrix))]).float().reshape(weight.shape)
    plain = nearest(encoding, weight)
    errors = [_proxy(evidence, layer.matrix(numbers(encoding, c)), layer.matrix(weight)) for c in (codes, plain)]
    return codes if errors[0] < errors[1] else plain


def round_matrix(weight: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, low: int,
                 high: int, damping: float, by_size: bool) -> torch.Tensor:
    """Codes, float64 [O, K]. weight, scale, zero_point: float64 [O, K]; x: [n, K]."""
    x = x.double()
    hessian = x.T @ x
    diagonal = hessian.diagonal()
    diagonal += max(float(diagonal.mean()) * damping, 1e-12)
    order = diagonal.argsort(descending=True) if by_size else torch.arange(len(diagonal))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
    upper = torch.linalg.cholesky(inverse, upper=True)
    left = weight[:, order].clone()
    scale, zero_point = scale[:, order], zero_point[:, order]
    codes = torch.empty_like(left)
    for j in range(left.shape[1]):
        codes[:, j] = affine.encode(left[:, j], scale[:, j], zero_point[:, j], low, high)
        error = (left[:, j] - (codes[:, j] - zero_point[:, j]) * scale[:, j]) / upper[j, j]
        left[:, j + 1:] -= torch.outer(error, upper[j, j + 1:])
    return codes[:, order.argsort()]


def _proxy(evidence: Evidence, matrix: torch.Tensor, weight: torch.Tensor) -> float:
    """GPTQ's objective: ‖(W̃ − W)·x̂‖² a row."""
    return float(products(matrix - weight, evidence.x).square().sum(1).double().mean())

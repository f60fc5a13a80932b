"""AdaRound: each weight rounded up or down so that the layer's output changes least.

Minimises ‖f(W·x) − f(W̃·x̂)‖² + λ·Σ(1 − |2h(V) − 1|^β) over V, with W̃ = s·clip(⌊W/s⌋ + h(V), n, p) and
h(V) = clip(σ(V)·(ζ − γ) + γ, 0, 1): x from the float network, x̂ from the layers already repaired, f the activation
behind the layer. At the end a weight is rounded up where h(V) ≥ 0.5, that is V ≥ 0.
Source: Nagel et al. 2020, arXiv:2004.10568; schedule of β as in AIMET 1.26.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewbits.optimize.checkpoint import Checkpoint
from fewbits.optimize.evidence import Evidence, gather
from fewbits.optimize.layer import has_codes
from fewbits.optimize.outcome import check_reread, unless_worse
from fewbits.optimize.rounding import grid, integer_encoding, nearest, numbers, write_codes
from fewbits.optimize.walk import walk
from fewbits.program.inputs import Batch
from fewbits.quant.simulation import Simulation

ZETA, GAMMA = 1.1, -0.1


@dataclass(frozen=True)
class Schedule:
    """iterations: of Adam a layer; rows: sums compared in each; evidence: sums drawn from the data for a layer;
    rate: of Adam; weight: λ as a share of the error of nearest rounding, for all weights of the layer together;
    warm_start: share of the iterations without the second term; beta: its power, first and last."""

    iterations: int = 400
    rows: int = 1024
    evidence: int = 16384
    rate: float = 0.02
    weight: float = 10.0
    warm_start: float = 0.2
    beta: tuple[float, float] = (20.0, 2.0)


def rectified_sigmoid(v: torch.Tensor) -> torch.Tensor:
    """h(V), in [0, 1]."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def initial(fraction: torch.Tensor) -> torch.Tensor:
    """V with h(V) = fraction, for fractions in [0, 1]."""
    return -torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)


def undecided(h: torch.Tensor, beta: float) -> torch.Tensor:
    """1 − |2h − 1|^β: 0 where h is 0 or 1, 1 at a half."""
    return 1 - (2 * h - 1).abs().pow(beta)


def beta_at(iteration: int, iterations: int, warm_start: float = 0.2,
            beta: tuple[float, float] = (20.0, 2.0)) -> float:
    """β falls along half a cosine from its first value, held through the warm start, to its last."""
    start = warm_start * iterations
    share = max(0.0, iteration - start) / (iterations - start)
    return beta[1] + 0.5 * (beta[0] - beta[1]) * (1 + math.cos(math.pi * share))


def raised(floor: torch.Tensor, by: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """clip(⌊W/s⌋ + by, low, high), broadcast: soft codes for `by` = h(V) (eq. 22), hard ones for 0 or 1."""
    return torch.minimum(torch.maximum(floor + by, low), high)


def adaround(simulation: Simulation, batches: Iterable[Batch], *, schedule: Schedule | None = None, seed: int = 0,
             even_if_worse: bool = False, checkpoint: str | Path | None = None,
             batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation whose weights are rounded as the data asks, layer by layer; scales and biases stay.

    batches: as for `calibrate`; all are kept in memory. checkpoint: a file that keeps finished layers; a second
    run with the same arguments goes on from it to the same bytes. Where the result is not nearer to the float
    layer's output than nearest rounding, nearest rounding stays. even_if_worse: as for `equalize`. Raises RepairError
    for a weight that two nodes use.
    """
    check_reread(batches, "adaround", even_if_worse)
    schedule = schedule or Schedule()
    repaired = simulation.to_repair()
    kept = Checkpoint.open(checkpoint, repaired, f"adaround {schedule} {seed}", batches)
    for number, stop in enumerate(walk(repaired, kept.batches, "rounding", batch_to_inputs)):
        if not has_codes(repaired, stop.layer.weight):
            continue
        layer = stop.layer
        if layer.weight in kept:
            write_codes(repaired, layer.weight, kept.codes(repaired, layer.weight))
            continue
        generator = torch.Generator().manual_seed(seed * 100_003 + number)
        codes = round_layer(repaired, gather(repaired, stop, schedule.evidence, generator), schedule, generator)
        write_codes(repaired, layer.weight, codes)
        kept.add({layer.weight: codes})
    return unless_worse(simulation, repaired, kept.batches, "adaround", even_if_worse, batch_to_inputs)


def round_layer(simulation: Simulation, evidence: Evidence, schedule: Schedule,
                generator: torch.Generator) -> torch.Tensor:
    """The codes of one layer's weight, float32; those of nearest rounding unless others are better."""
    layer = evidence.layer
    encoding = integer_encoding(simulation, layer.weight)
    weight = simulation.model.tensor(layer.weight).detach()
    scale, zero_point = (layer.matrix(v) for v in grid(encoding, weight))
    low, high = encoding.format.low - zero_point, encoding.format.high - zero_point
    steps = layer.matrix(weight) / scale
    floor = steps.floor()
    plain = nearest(encoding, weight)
    unit = evidence.error(layer.matrix(numbers(encoding, plain)))
    if unit == 0:
        return plain
    v = initial(steps - floor).requires_grad_()
    adam = torch.optim.Adam([v], lr=schedule.rate)
    wanted = layer.activate(evidence.target)
    for iteration in range(schedule.iterations):
        which = torch.randint(len(wanted), (schedule.rows,), generator=generator)
        h = rectified_sigmoid(v)
        soft = raised(floor, h, low, high) * scale
        loss = (evidence.outputs(soft, which) - wanted[which]).square().sum(1).mean() / unit
        if iteration >= schedule.warm_start * schedule.iterations:
            beta = beta_at(iteration, schedule.iterations, schedule.warm_start, schedule.beta)
            loss = loss + schedule.weight * undecided(h, beta).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    chosen = raised(floor, v.detach() >= 0, low, high) + zero_point
    chosen = chosen.reshape(weight.shape)
    better = evidence.error(layer.matrix(numbers(encoding, chosen))) < unit
    return chosen if better else plain

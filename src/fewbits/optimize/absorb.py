"""High-bias absorption: what a ReLU never cuts off moves into the next layer's bias.

Where batch norm says that a channel lies above c = max(0, β − 3|γ|) almost always, ReLU(x) = ReLU(x − c) + c there:
b¹ −= c and b² += W²·c give the same numbers from a narrower activation. Exact except for the 0.13 % of values below
c (for a normal distribution). Source: Nagel et al. 2019, arXiv:1906.04721, §4.1.3.

Only where the second layer sees no zero padding: a padded 0 would stand for −c, and the border would be wrong.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from fewbits.graph.graph import Node
from fewbits.graph.model import Model, Normal
from fewbits.optimize.bias import give_biases
from fewbits.optimize.chains import Chain, chains, columns
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.optimize.outcome import check_reread, unless_worse
from fewbits.optimize.recalibrated import model_to_rescale, recalibrated
from fewbits.program.inputs import Batch
from fewbits.program.windows import margins_of, sizes_of
from fewbits.quant.simulation import Simulation


def absorbed(normal: Normal) -> torch.Tensor:
    """c = max(0, β − 3|γ|), float64 [channels]."""
    return (normal.mean - 3 * normal.std.abs()).clamp(min=0)


def absorb_high_biases(simulation: Simulation, batches: Iterable[Batch], *, even_if_worse: bool = False,
                       checkpoint: str | Path | None = None,
                       batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """A simulation of the model with its high biases absorbed, calibrated on `batches`.

    Layers without a folded batch norm stay as they are. even_if_worse: as for `equalize`; checkpoint: a file that keeps
    the encodings found. Raises RepairError after repairs that round weights.
    """
    check_reread(batches, "absorb_high_biases", even_if_worse)
    model = model_to_rescale(simulation, "absorb_high_biases")
    kept = Checkpoint.open(checkpoint, simulation, "absorb", batches)
    plan = give_biases(model, simulation.plan)
    for chain in chains(model):
        normal = model.predicted.get(chain.first.name)
        if normal is not None and _exact(model, chain):
            move(model, chain, absorbed(normal))
    return unless_worse(simulation, recalibrated(model, plan, kept.batches, kept, batch_to_inputs), kept.batches,
                        "absorb_high_biases", even_if_worse, batch_to_inputs)


def move(model: Model, chain: Chain, amount: torch.Tensor) -> None:
    """b¹ −= c and b² += W²·c, in float64. amount: c, [channels]."""
    with torch.no_grad():
        first, second = (model.tensor(node["bias"].name) for node in (chain.first, chain.second))
        view = columns(model, chain).double()
        gain = (view.sum(3) * amount.reshape(view.shape[0], 1, view.shape[2])).sum(2).reshape(-1)
        first.copy_((first.double() - amount).to(first.dtype))
        second.copy_((second.double() + gain).to(second.dtype))
    normal = model.predicted.get(chain.first.name)
    if normal is not None:
        model.predicted[chain.first.name] = Normal(normal.mean - amount, normal.std)


def _exact(model: Model, chain: Chain) -> bool:
    """Whether a shift behind the ReLU reaches every sum of the second layer unchanged."""
    shifts = all(node.op in ("clamp", "max_pool", "adaptive_average_pool", "mean", "reshape")
                 for node in chain.between)
    second = chain.second
    return chain.through_relu and shifts and not (second.op == "conv" and _padded(model, second))


def _padded(model: Model, conv: Node) -> bool:
    kernel = model.tensor(conv["weight"].name).shape[2:]
    return any(sum(margin) for margin in margins_of(conv["padding"], kernel, sizes_of(conv["dilation"], len(kernel))))

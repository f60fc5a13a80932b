"""A network and its data, as the verbs that look at quantization open them."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fewbits.artifact.into_network import read_weights
from fewbits.cli.data import Given, open_data
from fewbits.data.preparation import Preparation
from fewbits.data.split import DataSet, Inputs
from fewbits.graph.model import Model
from fewbits.quant.plan import Plan
from fewbits.tasks.registry import resolve
from fewbits.tasks.training import initialised
from fewbits.workflow.quantize import first_two, planned


@dataclass(frozen=True)
class Opened:
    """net: the float network; model, plan: captured, folded, planned; calibration: its batches."""

    net: nn.Module
    model: Model
    plan: Plan
    calibration: Inputs
    data: DataSet
    preparation: Preparation


def opened(network: str, data: str, weights: Path | None, recipe: str, given: Given, batch_size: int,
           seed: int) -> Opened:
    """What the options of `fewbits quantize` mean. Raises FewbitsError."""
    task = resolve(network)
    net = initialised(task.build, seed=0)
    if weights is not None:
        read_weights(net, weights)
    net.eval()
    split, preparation = open_data(data, given, task.preparation, task.example_shape)
    calibration = split.draw_calibration(seed).inputs(batch_size, preparation.normalize)
    model, plan = planned(net, first_two(calibration), recipe)
    return Opened(net, model, plan, calibration, split, preparation)

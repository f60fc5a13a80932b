"""A network and its data, as the verbs that look at quantization open them."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fewbits.artifact.into_network import read_weights
from fewbits.cli.data import open_data
from fewbits.cli.verbs.search import Search
from fewbits.cli.verbs.studies import Calibrate, CalibrationStudy, RoundingStudy, Sensitivity
from fewbits.data.preparation import Preparation
from fewbits.data.split import DataSet, Inputs
from fewbits.errors import UntrainedWarning
from fewbits.graph.model import Model
from fewbits.quant.plan import Plan
from fewbits.tasks.registry import Task, resolve
from fewbits.tasks.training import initialised, random_tensors
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


def opened(asked: Calibrate | Sensitivity | RoundingStudy | CalibrationStudy | Search) -> Opened:
    """What these verbs are told of a network and its data. Raises FewbitsError."""
    task = resolve(asked.network)
    net = network_with_weights(task, asked.weights).eval()
    split, preparation = open_data(asked.data, asked, task.preparation, task.example_shape)
    calibration = split.draw_calibration(asked.seed).inputs(asked.batch_size, preparation.normalize)
    model, plan = planned(net, first_two(calibration), asked.recipe)
    return Opened(net, model, plan, calibration, split, preparation)


def network_with_weights(task: Task, weights: Path | None, seed: int = 0,
                         without: str = "its accuracy is that of guessing") -> nn.Module:
    """The network, with the weights of a file where one is given. An UntrainedWarning says so, and `without`, where
    none is and some of its numbers are random: found by building it twice. Raises FewbitsError."""
    net = initialised(task.build, seed)
    if weights is not None:
        read_weights(net, weights)
        return net
    random = random_tensors(task.build, net, seed)
    if random:
        sizes = {name: tensor.numel() for name, tensor in net.state_dict().items()}
        mostly = 2 * sum(sizes[name] for name in random) > sum(sizes.values())
        warnings.warn(f"no --weights: {task.name} is {'' if mostly else 'partly '}untrained, {len(random)} of its "
                      f"{len(sizes)} tensors are random numbers (the first is {random[0]!r}), and {without}",
                      UntrainedWarning, stacklevel=2)
    return net

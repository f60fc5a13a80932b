"""One step of gradient descent, shared by every training loop of the package."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from fewbits.errors import DataError, TrainingError
from fewbits.processes import ALONE, Processes, ended_elsewhere
from fewbits.quant.simulation import Simulation, SimulationVisitor
from fewbits.train.distillation import Distillation

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of outputs and labels, a mean over the batch."""


class Steps:
    """Takes steps: the batch goes to the network's device, the parameters go down the gradient of its loss, and every
    simulation in the network is told that they have moved.

    optimizer: over parameters of `net`; distillation: adds a teacher's loss; processes: each takes its rows of a batch,
    and the gradients are those of the whole batch (torch's DistributedDataParallel).
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, loss: Loss, distillation: Distillation | None = None,
                 processes: Processes = ALONE):
        self._net, self._optimizer, self._loss, self._distillation = net, optimizer, loss, distillation
        self._processes = processes
        self._called: nn.Module = net if processes.count == 1 else DistributedDataParallel(
            net, broadcast_buffers=False, find_unused_parameters=True)
        self._device = next(net.parameters()).device
        self._simulations = [module for module in net.modules() if isinstance(module, Simulation)]

    def take(self, x: Tensor, y: Tensor, when: str) -> float:
        """The loss of a batch, the whole of it, as it was before the step.

        when: the step's place in the training, for messages. Raises DataError for labels that the network has no output
        for, TrainingError when the loss is not finite, naming step and layer.
        """
        x, y = (self._processes.part(each).to(self._device) for each in (x, y))
        outputs = self._called(x)
        _check_labels(outputs, y)
        value = self._loss(outputs, y)
        if self._distillation is not None:
            value = self._distillation.loss(x, outputs, value)
        whole, share = self._of_the_batch(value, len(y))
        if not math.isfinite(whole):
            raise TrainingError(_diagnosis(self._net, x, whole, when))
        self._optimizer.zero_grad()
        if self._processes.count == 1:
            value.backward()
        else:
            with ended_elsewhere():
                (value * share).backward()
        self._optimizer.step()
        for simulation in self._simulations:
            simulation.after_step()
        return whole

    def _of_the_batch(self, value: Tensor, rows: int) -> tuple[float, float]:
        """(mean loss of the whole batch, by what this process's loss is multiplied so that the mean of all processes'
        gradients is that of the batch)"""
        if self._processes.count == 1:
            return value.item(), 1.0
        sums = torch.stack([value.detach() * rows, torch.full_like(value, rows)]).detach()
        total, count = self._processes.summed(sums).tolist()
        return total / count, self._processes.count * rows / count


class InPrecision(nn.Module):
    """A network whose products are taken in another float type while it learns, its outputs float32; weights stay as
    they are."""

    def __init__(self, net: nn.Module, precision: torch.dtype):
        super().__init__()
        self.net, self.precision = net, precision

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32):
            outputs = self.net(x)
        return outputs.float()


def _check_labels(outputs: Any, labels: Tensor) -> None:
    if not isinstance(outputs, Tensor):
        raise DataError(f"The network returns a {type(outputs).__name__}; train with a loop of your own, or a network "
                        "that returns one tensor.")
    if not labels.is_floating_point() and (outputs.ndim < 2 or int(labels.max()) >= outputs.shape[1]):
        raise DataError(f"A label is {int(labels.max())} and the network gives {list(outputs.shape)} "
                        f"for a batch of {len(labels)}; use a network with one output per class.")


def _diagnosis(net: nn.Module, x: Tensor, loss: float, when: str) -> str:
    """Where a loss that is not finite comes from: step, and first layer with such a number."""
    layers = net.model if isinstance(net, Simulation) else net
    where = None if torch.isfinite(x).all() else "the inputs hold NaN or Inf"
    where = where or next((f"parameter {name!r} holds NaN or Inf" for name, tensor in layers.named_parameters()
                           if not torch.isfinite(tensor).all()), None)
    if where is None and isinstance(net, Simulation):
        seeking = _Seeking(net)
        with torch.no_grad():
            net.run(net.model.named_inputs((x,), {}), seeking)
        where = seeking.found and f"the result of {seeking.found!r} is the first that is not finite"
    found = f": {where}" if where else ""
    return (f"the loss is {loss} at {when}{found}; look at the data for NaN, or lower the "
            "learning rate")


class _Seeking(SimulationVisitor):
    """Notes the first value that is not finite."""

    found: str | None = None

    def value(self, name: str, value: Any) -> Any:
        result = super().value(name, value)
        if self.found is None and isinstance(result, Tensor) and not torch.isfinite(result).all():
            self.found = name
        return result

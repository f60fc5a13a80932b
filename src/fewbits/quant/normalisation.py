"""Whether calibration data looks like what the network was trained on: batch norm remembers.

A batch norm gives results of mean β and deviation |γ| on training data, channel by channel. Data that was normalised
otherwise (0 to 255 for 0 to 1, no mean and std) shows at once in the layers it meets first. Measured as the
divergence of two normal distributions, ln(σ/s) + (s² + (m − μ)²)/(2σ²) − ½ nats, m and s observed, μ and σ predicted,
of the median channel. On ResNet-20 and -56 and MobileNetV1-0.25 it stays below 0.15 in every layer with the right data
(8 images or more), and the first layer has 0.43 with data in −1 to 1, 1.1 in 0 to 1, above 1800 in 0 to 255. Swapped
colours (BGR for RGB) are not seen: they change the statistics less than another draw of images does.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from fewbits.errors import NormalisationWarning
from fewbits.fold.batch_norm import prediction
from fewbits.graph.model import Model, Normal
from fewbits.quant.batch_norm import channel_axis
from fewbits.quant.simulation import Simulation, SimulationVisitor

FARTHEST = 0.3
"""Nats, of the median channel, beyond which a layer is reported: halfway between right data and wrong, measured."""
_INPUTS = 32  # looked at, of each batch and in all about; the statistics of a layer need no more
_FEWEST = 8  # inputs that tell anything


@dataclass(frozen=True)
class Deviation:
    """A layer's results beside what its batch norm predicts, of the median channel. nats: the divergence; spread: the
    observed deviation over the predicted one; shift: distance of the means in predicted deviations."""

    site: str
    nats: float
    spread: float
    shift: float

    def __str__(self) -> str:
        return (f"the results of {self.site!r} spread {self.spread:.2g} times as widely as its batch norm saw in "
                f"training, and their means lie {self.shift:.2g} deviations away: the calibration data seems to be "
                "normalised otherwise than the training data was; check the range of values (0 to 1, or 0 to 255), "
                "and the mean and std that are taken off and divided by")


class NormalisationCheck(SimulationVisitor):
    """Watches the first inputs of a calibration, and says what does not look like training."""

    def __init__(self, simulation: Simulation):
        super().__init__(simulation)
        self._predicted = predictions(simulation.model)
        self._axes = _channel_axes(simulation.model)
        self._seen: dict[str, list[Normal]] = {}
        self._sizes: list[int] = []

    @property
    def wants_more(self) -> bool:
        """Whether further inputs would be looked at."""
        return bool(self._predicted) and sum(self._sizes) < _INPUTS

    def count(self, inputs: int) -> None:
        """To be called once a batch, with its size."""
        self._sizes.append(min(inputs, _INPUTS))

    def value(self, name: str, value: Any) -> Any:
        if name in self._predicted:
            axes = [axis for axis in range(value.ndim) if axis != self._axes[name]]
            self._seen.setdefault(name, []).append(_moments(value[:_INPUTS].detach(), axes))
        return super().value(name, value)

    def first_deviation(self) -> Deviation | None:
        """The first layer, in running order, that is farther from its batch norm than right data ever is."""
        if sum(self._sizes) < _FEWEST:
            return None
        found = (deviation(name, _together(seen, self._sizes), self._predicted[name])
                 for name, seen in self._seen.items())
        return next((item for item in found if item is not None and item.nats > FARTHEST), None)

    def warn(self) -> None:
        """A NormalisationWarning where the data does not look like that of training."""
        if (first := self.first_deviation()) is not None:
            warnings.warn(str(first), NormalisationWarning, stacklevel=3)


def predictions(model: Model) -> dict[str, Normal]:
    """What batch norm says of each value it made, or was folded into."""
    live = {node.name: prediction(model, node) for node in model.graph.nodes if node.role == "norm"}
    return model.predicted | {name: normal for name, normal in live.items() if normal is not None}


def deviation(site: str, seen: Normal, predicted: Normal) -> Deviation | None:
    """How far apart the two are; channels of no predicted spread (pruned ones) count for nothing."""
    some = predicted.std > 0
    if not some.any():
        return None
    mean, std, centre, width = seen.mean[some], seen.std[some], predicted.mean[some], predicted.std[some]
    spread, shift = std / width, (mean - centre).abs() / width
    nats = -spread.log() + (spread.square() + shift.square()) / 2 - 0.5
    return Deviation(site, float(nats.median()), float(spread.median()), float(shift.median()))


def _moments(value: torch.Tensor, axes: list[int]) -> Normal:
    """Mean and deviation over some axes; fast rather than exact (var_mean takes five times as long)."""
    count = math.prod(value.shape[axis] for axis in axes)
    mean = value.sum(axes).double().cpu() / count
    square = torch.linalg.vector_norm(value, 2, axes).double().cpu().square() / count
    return Normal(mean, (square - mean.square()).clamp(min=0).sqrt())


def _together(seen: list[Normal], sizes: list[int]) -> Normal:
    """Mean and deviation of several batches as one."""
    weights = torch.tensor(sizes[:len(seen)]).double()
    weights = (weights / weights.sum())[:, None]
    means, squares = (torch.stack(rows) for rows in zip(*((n.mean, n.std**2 + n.mean**2) for n in seen), strict=True))
    mean = (weights * means).sum(0)
    return Normal(mean, ((weights * squares).sum(0) - mean**2).clamp(min=0).sqrt())


def _channel_axes(model: Model) -> dict[str, int]:
    return {node.name: channel_axis(node) if node.role == "dot" else 1 for node in model.graph.nodes
            if node.role in ("dot", "norm")}

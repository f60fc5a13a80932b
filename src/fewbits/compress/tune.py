"""Codebook fine-tuning: trains the centroids while every weight keeps its code."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.compress.share import Shared
from fewbits.errors import RecipeError
from fewbits.train.codebook import look_up


class Codebooks(nn.Module):
    """A model whose shared weights are looked up, so that training moves the centroids and nothing else of them.

    model: called as before; its other parameters (biases, norms) stay its own and trainable. shared: by the names
    of its parameters. mean: divides the gradient of each centroid by the number of its members: the same
    direction, but a learning rate then means for a centroid what it means for a weight. With mean False it is the
    paper's sum. Raises RecipeError for a name or shape that the model does not have.
    Source: Han, Mao and Dally 2016, arXiv:1510.00149, §3.3, eq. 3.
    """

    def __init__(self, model: nn.Module, shared: Mapping[str, Shared], mean: bool = False):
        super().__init__()
        parameters = dict(model.named_parameters())
        for name, one in shared.items():
            if name not in parameters or tuple(parameters[name].shape) != one.shape:
                raise RecipeError(f"shared weights {name!r} of shape {list(one.shape)} fit no parameter of the model")
            parameters[name].requires_grad_(False)
        self.model, self._shared = model, dict(shared)
        self.centroids = nn.ParameterList()
        self._names = list(shared)
        for number, name in enumerate(shared):
            flat = torch.from_numpy(shared[name].centroids.reshape(-1).copy())
            self.centroids.append(nn.Parameter(flat))
            index = torch.from_numpy(shared[name].table_index())
            self.register_buffer(f"_index{number}", index, persistent=False)
            if mean:
                members = torch.bincount(index.reshape(-1), minlength=len(flat) + 1)[1:].clamp_min(1)
                self.centroids[number].register_hook(_divide_by(members))

    def weights(self) -> dict[str, Tensor]:
        """The current shared weights, by name."""
        return {name: self._weight(number) for number, name in enumerate(self._names)}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(self.model, self.weights(), args, kwargs)

    def shared(self) -> dict[str, Shared]:
        """The codes with the current centroids."""
        return {name: self._shared[name].with_centroids(values.detach().cpu().numpy())
                for name, values in zip(self._names, self.centroids, strict=True)}

    def write(self) -> None:
        """Puts the shared weights into the model's parameters."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in self.weights().items():
                parameters[name].copy_(weight)

    def _weight(self, number: int) -> Tensor:
        values = self.centroids[number]
        return look_up(values, getattr(self, f"_index{number}"))


def summed_step(shared: Shared, gradient: np.ndarray, rate: float) -> Shared:
    """One plain step of gradient descent: centroid − rate · sum of the gradients of its members.

    gradient: float32 of the weights' shape.
    """
    entries = shared.centroids.size + 1
    sums = np.bincount(shared.table_index().reshape(-1), weights=np.asarray(gradient, np.float64).reshape(-1),
                       minlength=entries)[1:]
    return shared.with_centroids(shared.centroids.astype(np.float64) - rate * sums.reshape(shared.centroids.shape))


def _divide_by(members: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient / members.to(gradient)

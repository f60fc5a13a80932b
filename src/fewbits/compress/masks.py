"""Pruning masks that survive every optimizer step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import RecipeError


class Masks:
    """Holds weights of a model at zero, or at values given, where masks say so, in place.

    masks: by the parameters' names, bool, True where a weight is free; values: what the others are, by name, zeros
    where none are given. While an optimizer is held (`hold`), each of its steps is preceded by dropping the gradients
    of held weights, so that they reach no norm and no momentum, and followed by setting them again, so that earlier
    momentum and weight decay move none. Raises RecipeError for a name or a shape that the model does not have.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], values: Mapping[str, Tensor] | None = None):
        parameters = dict(model.named_parameters())
        for name, mask in masks.items():
            if name not in parameters or parameters[name].shape != mask.shape:
                raise RecipeError(f"a mask for {name!r} of shape {list(mask.shape)} fits no parameter of the model")
        self._parameters = {name: parameters[name] for name in masks}
        self.masks = {name: mask.to(parameters[name].device) for name, mask in masks.items()}
        self._held = {name: ~mask for name, mask in self.masks.items()}
        self._values = {name: value.to(parameters[name].device) for name, value in (values or {}).items()}
        self.apply()

    def apply(self) -> None:
        """Sets the held weights."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                if name in self._values:
                    torch.where(self._held[name], self._values[name], parameter, out=parameter)
                else:
                    parameter.masked_fill_(self._held[name], 0)

    def change(self, masks: Mapping[str, Tensor], values: Mapping[str, Tensor] | None = None) -> None:
        """Replaces masks and values of some parameters; a weight that is no longer held continues from its value."""
        self.masks.update(masks)
        self._held.update({name: ~mask for name, mask in masks.items()})
        self._values.update(values or {})
        self.apply()

    def hold(self, optimizer: torch.optim.Optimizer) -> None:
        """Applies the masks after every step of that optimizer, for its lifetime."""
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def _before(self, *_: Any) -> None:
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(self._held[name], 0)

    def _after(self, *_: Any) -> None:
        self.apply()

    def density(self) -> float:
        """Share of weights kept, over all masks."""
        total = sum(mask.numel() for mask in self.masks.values())
        return sum(int(mask.sum()) for mask in self.masks.values()) / max(total, 1)

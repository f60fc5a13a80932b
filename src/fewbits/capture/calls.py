"""What the modules inside a network are called with while it runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from fewbits.errors import CaptureError


@dataclass(frozen=True)
class Call:
    """Arguments of one call, tensors copied as they were."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors in them, in order."""
        return [leaf for leaf in pytree.tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, torch.Tensor)]

    @property
    def signature(self) -> Any:
        """All that must stay the same from call to call: nesting, types and shapes without the batch, other values."""
        leaves, nesting = pytree.tree_flatten((self.args, dict(self.kwargs)))
        return str(nesting), tuple((leaf.dtype, tuple(leaf.shape[1:])) if isinstance(leaf, torch.Tensor) else repr(leaf)
                                   for leaf in leaves)


def calls(net: nn.Module, names: Iterable[str], args: tuple[Any, ...],
          kwargs: Mapping[str, Any]) -> dict[str, list[Call]]:
    """Runs `net` once, without gradients; the calls of each named module, in order, none where it was not reached."""
    seen: dict[str, list[Call]] = {name: [] for name in names}
    handles = []
    try:
        for name, found in seen.items():
            def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any],
                     found: list[Call] = found) -> None:
                found.append(Call(*pytree.tree_map_only(torch.Tensor, torch.clone, (given, named))))

            handles.append(net.get_submodule(name).register_forward_pre_hook(note, with_kwargs=True))
        with torch.no_grad():
            net(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextmanager
def running_example() -> Iterator[None]:
    """What the user's code raises within becomes a CaptureError."""
    try:
        yield
    except Exception as error:  # the user's own code, which may raise anything
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CaptureError(f"the model fails on the example ({first[0]}): give inputs of the shape and type "
                           "that it takes") from error


def batch_axis(tensor: torch.Tensor, tensors: Sequence[torch.Tensor]) -> int:
    """The axis of an input that is its batch: the first; the second of what has there the batch of the first of all
    inputs and in front of it another size, as the states of recurrent layers do, [layers, N, H]."""
    whole = len(tensors[0]) if tensors and tensors[0].ndim else 0
    return int(tensor.ndim == 3 and whole > 1 and tensor is not tensors[0] and len(tensor) != whole
               and tensor.shape[1] == whole)


def check_batch(tensor: torch.Tensor, axis: int = 0) -> None:
    """Raises CaptureError for an example tensor that leaves no batch axis free."""
    if tensor.ndim == 0 or tensor.shape[axis] < 2:
        raise CaptureError(f"the example has a batch of {tensor.shape[axis] if tensor.ndim else 'no axis'}: "
                           "give at least 2, or the exporter fixes the batch size")
    if tensor.numel() == 0:
        raise CaptureError(f"the example has an axis of 0 in shape {tuple(tensor.shape)}: give real sizes")

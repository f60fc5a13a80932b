"""How a batch meets a model's inputs: the one contract for models, simulations and programs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from fewbits.errors import DataError

Batch = Any  # a tensor, a tuple or list of tensors, a dict of tensors; or what batch_to_inputs turns into one


def bind(names: Sequence[str], batch: Batch,
         batch_to_inputs: Callable[[Any], Any] | None = None) -> dict[str, torch.Tensor]:
    """Tensors of a batch by input name: a tensor for a model of one input, a tuple or list by position, a dict
    by name. Nothing is guessed: whatever else a batch is, `batch_to_inputs` must turn into one of these.

    Raises DataError when the batch is not what the model takes.
    """
    if batch_to_inputs is not None:
        batch = batch_to_inputs(batch)
    match batch:
        case torch.Tensor():
            given: dict[str, Any] = {names[0]: batch} if len(names) == 1 else {"(one tensor)": batch}
        case tuple() | list() if len(batch) == len(names):
            given = dict(zip(names, batch, strict=True))
        case tuple() | list():
            raise DataError(f"a batch of {len(batch)} tensors is not what the model takes ({', '.join(names)}): "
                            "pass batch_to_inputs to pick the inputs out, for example lambda batch: batch[0]")
        case Mapping():
            given = dict(batch)
        case _:
            raise DataError(f"a batch is a {type(batch).__name__}: pass batch_to_inputs to turn it into tensors")
    if set(given) != set(names):
        raise DataError(f"a batch holds {', '.join(map(str, given))}, but the model takes {', '.join(names)}: "
                        "pass batch_to_inputs to match them")
    for name, tensor in given.items():
        if not isinstance(tensor, torch.Tensor):
            raise DataError(f"input {name!r} of a batch is a {type(tensor).__name__}, not a tensor")
    return {name: given[name] for name in names}


def with_batch_axis(tensors: Mapping[str, torch.Tensor],
                    shapes: Mapping[str, Sequence[int | None]]) -> tuple[dict[str, torch.Tensor], bool]:
    """One input without a batch axis as a batch of one, and whether it was: every tensor lacks the first axis of its
    shape and fits the others. Anything else stays what it is."""
    alone = bool(tensors) and all(
        isinstance(tensor, torch.Tensor) and len(shapes[name]) == tensor.ndim + 1 and shapes[name][0] in (None, 1)
        and all(wanted in (None, size) for wanted, size in zip(shapes[name][1:], tensor.shape, strict=True))
        for name, tensor in tensors.items())
    return ({name: tensor[None] for name, tensor in tensors.items()} if alone else dict(tensors)), alone


def without_batch_axis(outputs: Any) -> Any:
    """The results of one input, in the same structure."""
    return pytree.tree_map(lambda leaf: leaf[0] if isinstance(leaf, torch.Tensor | np.ndarray) else leaf, outputs)


def check(tensor: torch.Tensor, name: str, shape: Sequence[int | None], dtype: str = "float32") -> None:
    """Raises DataError unless the tensor has that shape (None: any size but 0), type and values."""
    if str(tensor.dtype) != f"torch.{dtype}":
        raise DataError(f"input {name!r} is {str(tensor.dtype).removeprefix('torch.')}, "
                        f"but the model takes {dtype}: convert and normalise it first")
    if len(tensor.shape) != len(shape) or any(
            wanted not in (None, size) for wanted, size in zip(shape, tensor.shape, strict=True)):
        wanted = "×".join(str(size) if size is not None else "any" if None in shape[:axis] else "N"
                          for axis, size in enumerate(shape))
        raise DataError(f"input {name!r} has shape {'×'.join(map(str, tensor.shape))}, "
                        f"but the model takes {wanted}")
    if tensor.device.type == "meta":
        raise DataError(f"input {name!r} is on the meta device and has no values: give a tensor that has")
    if tensor.numel() == 0:
        raise DataError(f"input {name!r} is empty: give at least one")

"""What tensors hold, as a digest that another run can compare."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree


def digest_of_state(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors with their names, shapes and types, in the order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(name.encode())
        add_tensor(found, tensor)
    return found.hexdigest()


def digest_of_batches(batches: Iterable[Any]) -> str:
    """SHA-256 of the tensors in batches, in order. One pass is made over them."""
    found = hashlib.sha256()
    for batch in batches:
        add_batch(found, batch)
    return found.hexdigest()


def add_batch(found: Any, batch: Any) -> None:
    """Adds the tensors of one batch, whatever they are nested in, to a hash of hashlib. What is no tensor is left out:
    its text may name a place in memory."""
    for leaf in pytree.tree_leaves(batch):
        if isinstance(leaf, torch.Tensor):
            add_tensor(found, leaf)


def add_tensor(found: Any, tensor: torch.Tensor) -> None:
    """Adds a tensor's shape, type and bytes to a hash of hashlib."""
    plain = tensor.detach().cpu().contiguous()
    found.update(f" {tuple(plain.shape)} {plain.dtype} ".encode())
    if plain.numel():
        found.update(plain.reshape(-1).view(torch.uint8).numpy().data)

"""Whether a captured graph is the model at other batch sizes than the example's: a branch on the size is frozen."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from fewbits.capture.calls import batch_axis
from fewbits.capture.traced import plain
from fewbits.errors import CaptureError
from fewbits.graph.model import Model

_NEAR = 1e-4  # of the largest output: other sizes are added up in another order
_MEND = "compute the same for every batch, or capture the part behind the branch"


def check_free(exported: ExportedProgram) -> None:
    """Raises CaptureError where the exporter has found that the graph holds for some batch sizes only."""
    for bounds in exported.range_constraints.values():
        low, high = int(bounds.lower), bounds.upper
        if low > 2 or high < 2**31:
            sizes = f"from {low} on" if not high < 2**31 else f"of {low} to {int(high)}"
            raise CaptureError(f"the model branches on the batch size, and what was captured holds for batches {sizes} "
                               f"only: {_MEND}")


def check_other_sizes(net: nn.Module, model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Runs the network and its graph on one input and on one more than the example has. Raises CaptureError where
    their numbers differ; a size that the network itself does not take tells nothing."""
    tensors = [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, torch.Tensor)]
    if len({tensor.shape[batch_axis(tensor, tensors)] for tensor in tensors}) != 1:
        return
    for size in (1, len(tensors[0]) + 1):
        def sized(leaf: Any, size: int = size) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            axis = batch_axis(leaf, tensors)
            return leaf.index_select(axis, torch.arange(size) % leaf.shape[axis])

        given, named = pytree.tree_map(sized, (args, dict(kwargs)))
        try:
            with torch.no_grad():
                inputs = [leaf.clone() for leaf in pytree.tree_leaves((given, named))
                          if isinstance(leaf, torch.Tensor)]  # the network may write into what it is given
                wanted = pytree.tree_leaves(plain(net(*given, **named)))
                got = pytree.tree_leaves(model(*inputs))
        except Exception:  # of the user's own code, or a size that the graph refuses aloud
            continue
        if any(differ(a, b) for a, b in zip(wanted, got, strict=False)):
            raise CaptureError(f"the model branches on the batch size: captured with {len(tensors[0])} inputs, the "
                               f"graph gives other outputs than the model for a batch of {size}; {_MEND}")


def differ(wanted: Any, got: Any) -> bool:
    """Whether two outputs of one shape are not nearly the same."""
    if not (isinstance(wanted, torch.Tensor) and isinstance(got, torch.Tensor) and wanted.shape == got.shape):
        return False
    if not wanted.is_floating_point():
        return not torch.equal(wanted, got)
    reach = float(wanted.abs().max()) if wanted.numel() else 0.0
    return not torch.allclose(wanted, got, rtol=0, atol=_NEAR * reach, equal_nan=True)

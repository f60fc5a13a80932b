"""What a graph's values take, found without computing any of them."""

import math
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from fewbits.capture.undisturbed import undisturbed, unlogged
from fewbits.errors import CaptureError
from fewbits.graph.graph import Node
from fewbits.graph.model import Model, Visitor
from fewbits.limits import GRAPH_ELEMENTS, GRAPH_LIVE_BYTES

_BATCH = 2


def check_sizes(model: Model) -> None:
    """Runs a graph on shapes alone, a batch of 2. Raises CaptureError, naming the node, where an operator does not take
    its operands, gives another shape than the graph says, or a value needs more than its limit."""
    with undisturbed(), unlogged("torch._subclasses.fake_tensor"), FakeTensorMode() as mode, torch.no_grad():
        inputs = {item.name: torch.empty([_BATCH if size is None else size for size in item.shape],
                                         dtype=getattr(torch, item.dtype)) for item in model.graph.inputs}
        visitor = _Sizes(mode, model)
        try:
            model.run(inputs, visitor)
        except CaptureError:
            raise
        except Exception as error:  # an operator's own refusal of its operands: any of torch's kinds
            told = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise CaptureError(f"{visitor.here} does not take its operands ({told[:160]})") from None


class _Sizes(Visitor):
    """Looks at every value, and counts what is kept."""

    def __init__(self, mode: FakeTensorMode, model: Model):
        self._mode = mode
        self._graph = model.graph
        self._order = model.graph.names()
        self._following = next(self._order, "")
        self._bytes: dict[str, int] = {}
        self._live = 0

    @property
    def here(self) -> str:
        """The node that is being run."""
        node = self._graph.by_name.get(self._following)
        return repr(self._following) + (f" at {node.source}" if node is not None and node.source else "")

    def parameter(self, node: Node, argument: str, name: str, value: torch.Tensor) -> torch.Tensor:
        return self._mode.from_tensor(value)

    def value(self, name: str, value: Any) -> Any:
        tensors = [item for item in pytree.tree_leaves(value) if isinstance(item, torch.Tensor)]
        for tensor in tensors:
            if not isinstance(tensor, FakeTensor):
                raise CaptureError(f"{self.here} is not computed from shapes")
            if tensor.numel() > GRAPH_ELEMENTS:
                raise CaptureError(f"{self.here} makes {tensor.numel()} numbers of a batch of {_BATCH}, shape "
                                   f"{list(tensor.shape)}, and {GRAPH_ELEMENTS} is the most: give a smaller network")
        node = self._graph.by_name.get(name)
        if node is not None and node.shape is not None and len(tensors) == 1:
            self._check_shape(node, tuple(tensors[0].shape))
        # A view counts as a copy: what is bounded is an upper bound.
        self._bytes[name] = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors)
        self._live += self._bytes[name]
        if self._live > GRAPH_LIVE_BYTES:
            raise CaptureError(f"at {self.here} the values that are still read take more than {GRAPH_LIVE_BYTES} bytes "
                               f"for a batch of {_BATCH}: give a smaller network")
        self._live -= sum(self._bytes[spent] for spent in self._graph.spent.get(name, ()))
        self._following = next(self._order, "")
        return value

    def _check_shape(self, node: Node, actual: tuple[int, ...]) -> None:
        assert node.shape is not None
        fits = len(actual) == len(node.shape) and all(
            told in (None, size) for told, size in zip(node.shape, actual, strict=True))
        if not fits:
            raise CaptureError(f"{self.here} gives shape {list(actual)} for a batch of {_BATCH}, and the graph says "
                               f"{list(node.shape)}")

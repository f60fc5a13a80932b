"""Ranges found at run time where a network is told which places are padding."""

import warnings
from collections.abc import Collection

from fewbits.errors import PaddingWarning
from fewbits.graph.functions import masked_softmax
from fewbits.graph.graph import Graph, Ref


def warn_of_padding(graph: Graph, dynamic: Collection[str]) -> None:
    """A PaddingWarning where layers take their ranges from each batch and attention hides places by an input: what
    stands at hidden places widens the ranges, so padding moves codes. dynamic: names of such tensors."""
    if not dynamic or not (hiding := _hiding(graph)):
        return
    first = repr(next(iter(dynamic)))
    taken = f"{first} and {len(dynamic) - 1} more take their" if len(dynamic) > 1 else f"{first} takes its"
    warnings.warn(PaddingWarning(
        f"{taken} ranges at run time over all places, those that {', '.join(map(repr, hiding))} "
        "hides among them: padding moves the codes of the places that are seen; give batches without padding, or take "
        "a recipe with ranges from calibration, such as default-w8a8"), stacklevel=4)


def _hiding(graph: Graph) -> list[str]:
    """Inputs that attention masks are computed from."""
    wanted = {node["mask"].name for node in graph.everything
              if node.target is masked_softmax and isinstance(node["mask"], Ref)}
    for node in reversed(graph.nodes):
        if node.name in wanted:
            wanted.update(node.refs)
    return [item.name for item in graph.inputs if item.name in wanted]

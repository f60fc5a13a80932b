"""Shortcuts apart from what layers read, so that each may have an encoding of its own."""

from dataclasses import replace

import torch

from fewbits.fold.fold import rebuild
from fewbits.graph.graph import Node, Ref
from fewbits.graph.model import Model
from fewbits.graph.operators import operator_of

relu = torch.ops.aten.relu.default
_NOT_NEGATIVE = (relu, torch.ops.aten.relu6.default)


def separate_shortcuts(model: Model) -> Model:
    """Where layers with weights and something else, such as the addition at the end of a residual block, read the
    result of a ReLU, the layers read it through a second ReLU, which changes no number.

    A recipe can then give what layers take (`inputs:`) few bits and leave the shortcut more. Few-bit papers keep
    shortcuts in float; a value has one encoding here, and without this the shortcut gets the bits of the layers. In the
    program it is one table look-up more. Works on the copy that `capture` made, as `fold` does, after it.
    """
    graph, nodes = model.graph, list[Node]()
    apart: dict[str, str] = {}
    for node in graph.nodes:
        layer = node.role == "dot"
        nodes.append(node.changed(lambda item: Ref(apart[item.name]) if isinstance(item, Ref) and item.name in apart
                                  else item) if layer else node)
        if node.target not in _NOT_NEGATIVE:
            continue
        readers = graph.consumers[node.name]
        layers = sum(reader.role == "dot" for reader in readers)
        if layers and (layers < len(readers) or node.name in graph.outputs):
            apart[node.name] = f"{node.name}.for_layers"
            nodes.append(replace(node, name=apart[node.name], target=relu, operator=operator_of(relu),
                                 arguments={"self": Ref(node.name)}, positional=1))
    rebuild(model, nodes, {})
    return model

"""A captured model: an ordinary nn.Module that runs a `Graph`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fewbits.errors import CaptureError
from fewbits.graph.graph import Body, Graph, Node, Param, Ref, Shape, map_leaves
from fewbits.graph.operators import TRAINING_ARGUMENT
from fewbits.graph.recurrent_sizes import check_recurrent
from fewbits.program.inputs import with_batch_axis, without_batch_axis
from fewbits.program.program import fill

Tensors = Mapping[str, torch.Tensor]


class Visitor:
    """What a run may change on the way. This one changes nothing."""

    def parameter(self, node: Node, argument: str, name: str, value: torch.Tensor) -> torch.Tensor:
        """Called for each parameter or buffer that a node reads, with its name; returns what it computes with."""
        return value

    def operand(self, node: Node, argument: str, value: Any) -> Any:
        """Called for each value that a node reads; returns what it computes with."""
        return value

    def value(self, name: str, value: Any) -> Any:
        """Called for each input and each node's result; returns what its readers see."""
        return value


@dataclass(frozen=True, eq=False)
class Normal:
    """Mean and standard deviation of each channel, float64 [C]: β and |γ| of a batch norm (Nagel et al. 2019,
    arXiv:1906.04721, §4.1.3)."""

    mean: torch.Tensor
    std: torch.Tensor


class Model(nn.Module):
    """Runs a graph in float, with parameters and buffers under the user's own names.

    `train()` and `eval()` reach batch norm and dropout, as on any module.
    """

    def __init__(self, graph: Graph, state: Mapping[str, torch.Tensor]):
        """state: parameters (nn.Parameter) and buffers by dotted name; tied ones are one object."""
        super().__init__()
        self.graph = graph
        self.folded = False
        """Whether `fold` has done what it can."""
        self.norms_frozen = False
        """Whether batch norm keeps its statistics in training too (`fb.freeze_batch_norm`)."""
        self.predicted: dict[str, Normal] = {}
        """What batch norm says of the results of the nodes it was folded into, by node."""
        for name, tensor in state.items():
            self.set_tensor(name, tensor)

    def __setattr__(self, name: str, value: Any) -> None:
        """Attributes the model has stay its own where a module of the user has the name of one."""
        if name in self.__dict__:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def set_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Puts a parameter or buffer under its dotted name, replacing what was there. It may be called as an
        attribute of this class, `graph` or `run`."""
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            if part not in module._modules:
                module._modules[part] = nn.Module()
            module = _child(module, part)
        module._parameters.pop(leaf, None)
        module._buffers.pop(leaf, None)
        if isinstance(tensor, nn.Parameter):
            module._parameters[leaf] = tensor
        else:
            module._buffers[leaf] = tensor

    def shapes(self) -> dict[str, Shape | None]:
        """Shapes of all values and of the parameters and buffers that nodes read, by name."""
        shapes: dict[str, Shape | None] = {item.name: item.shape for item in self.graph.inputs}
        shapes |= {node.name: node.shape for node in self.graph.everything}
        shapes |= {name: tuple(self.tensor(name).shape) for node in self.graph.nodes for name in node.params}
        return shapes

    def tensor(self, name: str) -> torch.Tensor:
        """The parameter or buffer of that dotted name. Raises KeyError where there is none."""
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            module = _child(module, part)
        tensor = module._parameters[leaf] if leaf in module._parameters else module._buffers[leaf]
        assert tensor is not None
        return tensor

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        """As the user's model: positional or named tensors in, its own structure out. One input without its batch axis
        gives one result without it."""
        inputs, alone = self.batched(self.named_inputs(args, kwargs))
        return without_batch_axis(self.run(inputs)) if alone else self.run(inputs)

    def batched(self, inputs: Tensors) -> tuple[Tensors, bool]:
        """Inputs by name, one input without a batch axis as a batch of one, and whether it was."""
        return with_batch_axis(inputs, {item.name: item.taken for item in self.graph.inputs})

    def named_inputs(self, args: tuple[torch.Tensor, ...], kwargs: Tensors) -> dict[str, torch.Tensor]:
        """Call arguments by input name. Raises CaptureError when they are not the model's."""
        names = [item.name for item in self.graph.inputs]
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        if len(args) > len(names) or set(given) != set(names):
            raise CaptureError(f"the model takes {', '.join(names)}, "
                               f"not {len(args)} positional and {sorted(kwargs)} named inputs")
        return given

    def run(self, inputs: Tensors, visitor: Visitor | None = None) -> Any:
        """The graph's results, a visitor seeing (and replacing) every value and parameter."""
        visitor = visitor or Visitor()
        values = {name: visitor.value(name, tensor) for name, tensor in inputs.items()}
        for node in self.graph.nodes:
            result = self.call(node, values, visitor)
            values[node.name] = visitor.value(node.name, result)
            for name in self.graph.spent[node.name]:
                del values[name]
        return fill(self.graph.structure, values)

    def call(self, node: Node, values: Mapping[str, Any], visitor: Visitor) -> Any:
        """One node's result from the values of those before it; the visitor sees what it reads, and of a recurrence
        every value of every step."""
        if node.body is not None:
            return self._recur(node, node.body, values, visitor)

        def resolve(argument: str, item: Any) -> Any:
            if isinstance(item, Ref):
                return visitor.operand(node, argument, values[item.name])
            if isinstance(item, Param):
                return visitor.parameter(node, argument, item.name, self.tensor(item.name))
            if isinstance(item, torch.device):  # baked in by the capture; follow the model instead
                return self._device(item)
            return item

        arguments = {name: map_leaves(value, lambda item, name=name: resolve(name, item))
                     for name, value in node.arguments.items()}
        if node.op in TRAINING_ARGUMENT:
            frozen = node.role == "norm" and self.norms_frozen
            arguments[TRAINING_ARGUMENT[node.op]] = self.training and not frozen
        check_recurrent(node.name, node.target, arguments)
        return node.run(arguments)

    def _recur(self, node: Node, body: Body, values: Mapping[str, Any], visitor: Visitor) -> tuple[torch.Tensor, ...]:
        """The body, step by step. A state's value is what the step before made; the visitor sees it only where it comes
        from outside."""
        axis = node["axis"]
        sequences = {entry.name: values[entry["sequence"].name].unbind(axis) for entry in body.entries}
        whole = next(iter(sequences.values()))
        carried = {}
        for state in body.states:
            if isinstance(first := state["first"], Ref):
                carried[state.name] = visitor.value(state.name, values[first.name])
            else:
                assert state.shape is not None
                carried[state.name] = whole[0].new_zeros([len(whole[0]), *(size or 0 for size in state.shape[1:])])
        made = []
        for at in range(len(whole))[::-1 if node["backwards"] else 1]:
            inner = {name: entries[at] for name, entries in sequences.items()} | carried
            for each in body.nodes:
                if each.name not in inner:
                    inner[each.name] = visitor.value(each.name, self.call(each, inner, visitor))
            made.append(inner[body.output])
            carried = {state.name: inner[state["following"]] for state in body.states}
        stacked = torch.stack(made[::-1] if node["backwards"] else made, axis)
        return (stacked, *(carried[state.name] for state in body.states))

    def _device(self, captured: torch.device) -> torch.device:
        tensor = next(iter((*self.parameters(), *self.buffers())), None)
        return captured if tensor is None else tensor.device


def unfit_weight(net: nn.Module) -> str:
    """Why quantizing cannot start from a weight of this module: it has no values, or other numbers than float32; ""
    where all are fit."""
    for name, tensor in net.state_dict().items():
        if tensor.device.type == "meta":
            return f"weight {name!r} is on the meta device and has no values: load the weights first"
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            kind = str(tensor.dtype).removeprefix("torch.")
            return f"weight {name!r} is {kind}: quantizing starts from float32, so call net.float() first"
    return ""


def _child(module: nn.Module, name: str) -> nn.Module:
    child = module._modules[name]
    assert child is not None, "a model holds no empty places"
    return child

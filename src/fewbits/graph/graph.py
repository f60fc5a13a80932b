"""The captured graph as plain data: nodes that call one ATen operator each, by the user's names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Style = Literal["tensor", "tuple", "dict"]
Shape = tuple[int | None, ...]  # None: a size that moves with the batch


@dataclass(frozen=True)
class Ref:
    """The value that a node or an input of this name made."""

    name: str


@dataclass(frozen=True)
class Param:
    """A parameter or buffer by its state-dict name."""

    name: str


@dataclass(frozen=True, eq=False)
class Node:
    """One call.

    name: unique, from the user's modules: `layer1.0.conv1`, `layer1.0.add`, `relu#2` for a second use;
    target: the ATen operator (or a Python one, on sizes); arguments: all of them by their schema's names,
    defaults filled in, values as `Ref`, weights as `Param`; positional: how many lead by position;
    module: path of the module it stands in; source: `file.py:31` in the user's code; shape: of the
    result, None for a list of tensors or a size.
    """

    name: str
    target: Callable[..., Any]
    arguments: Mapping[str, Any]
    positional: int
    module: str
    source: str
    shape: Shape | None

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    @property
    def refs(self) -> tuple[str, ...]:
        """Names of the values it reads, in order, each once."""
        return tuple(dict.fromkeys(item.name for item in _items(self.arguments) if isinstance(item, Ref)))

    @property
    def params(self) -> tuple[str, ...]:
        """Names of the parameters and buffers it reads."""
        return tuple(dict.fromkeys(item.name for item in _items(self.arguments) if isinstance(item, Param)))


@dataclass(frozen=True)
class Input:
    """A tensor the model takes. dtype: the torch name, such as `float32`."""

    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in running order, and how the model is called.

    style: whether the example was one tensor, a tuple of positional ones, or a dict of named ones;
    structure: what the model returns, with value names for leaves.
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    structure: Any
    style: Style

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each value."""
        readers: dict[str, list[Node]] = {name: [] for name in self.names()}
        for node in self.nodes:
            for name in node.refs:
                readers[name].append(node)
        return readers

    def names(self) -> Iterator[str]:
        """Names of all values, inputs first."""
        yield from (item.name for item in self.inputs)
        yield from (node.name for node in self.nodes)


def _items(value: Any) -> Iterator[Any]:
    """Leaves of nested lists, tuples and dicts."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for item in value:
        yield from _items(item)


def replace(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with every leaf of its lists and tuples changed."""
    if isinstance(value, list | tuple):
        return type(value)(replace(item, change) for item in value)
    return change(value)

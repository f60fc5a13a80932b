"""The Program: an integer graph under a profile. It is the definition of the quantized model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from fewbits.errors import ProgramError
from fewbits.numerics.block import TENSOR
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.program.node import ProgramNode
from fewbits.program.ops import Constant, Conv, FloatCall, Linear, Recurrence, fits, reads, record_of
from fewbits.program.profile import Profile
from fewbits.program.value import PLAIN, Kind, Value

_KINDS: Mapping[Kind, str] = {"codes": "codes", "sums": "sums", "float32": "floats", "int64": "int64",
                              "int32": "int32", "uint8": "uint8", "int8": "int8", "bool": "truth values"}


@dataclass(frozen=True, eq=False)
class Program:
    """Nodes in an order in which they can run, the values they pass on, and how the model is called.

    inputs: float32 values, in the order the model takes them; values: every value by name;
    structure: what the model returns, built of dicts, lists and tuples with value names for leaves.
    Raises ProgramError when a node reads what no earlier one wrote, or a value of a kind that it does not take
    (accumulators are for Threshold and Dequantize only), when it writes floats and its value says codes, when a name
    is used twice, or a float call is in no table.
    """

    profile: Profile
    inputs: tuple[str, ...]
    nodes: tuple[ProgramNode, ...]
    values: Mapping[str, Value]
    structure: Any

    def __post_init__(self):
        known, named = set(self.inputs), set(self.inputs)
        self._check_nodes(self.nodes, known, named)
        missing = named.symmetric_difference(self.values)
        if missing:
            raise ProgramError(f"values and nodes do not match at {sorted(missing)[0]!r}")
        for name in self.outputs:
            if name not in known:
                raise ProgramError(f"output {name!r} is written by no node")
            if name not in self.by_name:
                raise ProgramError(f"output {name!r} is an input passed through: it has no codes")

    def _check_nodes(self, nodes: Sequence[ProgramNode], known: set[str], named: set[str]) -> None:
        """Raises ProgramError for a node that cannot stand behind those before it, in a body or outside. known: values
        that may be read, to which its own are added; named: every value so far."""
        for node in nodes:
            for name in reads(node):
                if name not in known:
                    raise ProgramError(f"node {node.name!r} reads {name!r}, which nothing before it wrote")
                self._check_read(node, name)
            if isinstance(node, Recurrence):
                inner = [each.name for each in (*node.entries, *node.states)]
                _name_once(inner, named)
                self._check_nodes(node.body, known.union(inner), named)
            record_of(node).check(self, node)
            if hasattr(node, "low"):
                fits.bounds(self, node)
            if (wanted := self._wrongly_written(node)) is not None:
                raise ProgramError(f"{node.name!r} cannot be {self.values[node.name]}: its node writes {wanted}")
            for name in node.written:
                self._check_width(node, name, "writes")
            known.update(node.written)
            _name_once(node.written, named)

    def _check_read(self, node: ProgramNode, name: str) -> None:
        """Raises ProgramError where a node reads a value of a kind that it does not take."""
        kind, takes = self.kind(name), record_of(node).takes
        if kind not in takes:
            words = " or ".join(text for each, text in _KINDS.items() if each in takes)
            article = "an" if type(node).__name__[0] in "AEIOU" else "a"
            raise ProgramError(f"node {node.name!r} cannot read {name!r}, which is {_KINDS[kind]}: "
                               f"{article} {type(node).__name__} reads {words}, and nothing else")
        self._check_width(node, name, "reads")

    def _check_width(self, node: ProgramNode, name: str, does: Literal["reads", "writes"]) -> None:
        """Raises ProgramError for codes of more bits than the profile's, but where it and the node take them.
        Constants, weights that islands decode, have any number."""
        if not self.is_wide(name) or isinstance(node, Constant):
            return
        bits, profile = self.encoding(name).format.bits, self.profile
        if bits > profile.inner_bits and not self.is_constant(name):
            raise ProgramError(f"{name!r} has codes of {bits} bits, and profile {profile.name} takes at most "
                               f"{max(profile.activation_bits, profile.inner_bits)}")
        if record_of(node).wide not in (does, "both"):
            raise ProgramError(f"node {node.name!r} {does} {name!r}, which has codes of {bits} bits, and under profile "
                               f"{profile.name} {type(node).__name__} {does} at most {profile.activation_bits}")

    def _wrongly_written(self, node: ProgramNode) -> str | None:
        """What a node writes, in words, where its value is of another kind; None where it is of that."""
        kind, writes = self.kind(node.name), record_of(node).writes
        if writes == "body":
            return None  # its check has seen to it
        if writes == "moved":
            read = reads(node)[0]
            if kind != self.kind(read):
                return _KINDS[self.kind(read)]
            return None if _are_the_same(self.values[node.name].encoding, self.values[read].encoding) else (
                f"the codes that it reads, {self.values[read].encoding}")
        if writes == "plain":
            return None if kind in PLAIN else "plain numbers"
        fits = kind == "float32" if writes == "float32" else kind in ("codes", "sums")
        return None if fits else "floats" if writes == "float32" else "codes"

    def kind(self, name: str) -> Kind:
        """What a value is to the node that reads it."""
        value = self.values[name]
        if value.encoding is None:
            return value.dtype
        return "sums" if self.is_accumulator(name) else "codes"

    @cached_property
    def everything(self) -> tuple[ProgramNode, ...]:
        """Its nodes, those of a body in front of the recurrence that runs it."""
        return tuple(one for node in self.nodes
                     for one in (*(node.body if isinstance(node, Recurrence) else ()), node))

    @cached_property
    def by_name(self) -> Mapping[str, ProgramNode]:
        """What writes each value, inputs and what a body is given left out."""
        return {name: node for node in self.everything for name in node.written}

    @cached_property
    def written(self) -> tuple[str, ...]:
        """Names of the values that its nodes write, in running order, those inside of bodies left out."""
        return tuple(name for node in self.nodes for name in node.written)

    @cached_property
    def _readers(self) -> Mapping[str, tuple[ProgramNode, ...]]:
        found: dict[str, list[ProgramNode]] = {}
        for node in self.everything:
            for name in dict.fromkeys(node.given if isinstance(node, Recurrence) else reads(node)):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def readers(self, name: str) -> tuple[ProgramNode, ...]:
        """The nodes that read a value, in running order, those in bodies among them."""
        return self._readers.get(name, ())

    @cached_property
    def _constants(self) -> Mapping[str, Quantized]:
        return {node.name: node.data for node in self.everything if isinstance(node, Constant)}

    def is_wide(self, name: str) -> bool:
        """Whether a value has codes of more bits than the profile's activations."""
        return self.kind(name) == "codes" and self.encoding(name).format.bits > self.profile.activation_bits

    def is_constant(self, name: str) -> bool:
        """Whether a value is codes known beforehand."""
        return name in self._constants

    def constant(self, name: str) -> Quantized:
        """The codes of a constant."""
        return self._constants[name]

    def is_float(self, name: str) -> bool:
        """Whether a value is float32: an input, or inside a float island."""
        return self.kind(name) == "float32"

    @property
    def has_islands(self) -> bool:
        """Whether some of it is computed in float32."""
        return any(isinstance(node, FloatCall) for node in self.everything)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values the model returns, each once, in order of first appearance."""
        return tuple(dict.fromkeys(leaves(self.structure)))

    @cached_property
    def _returned(self) -> frozenset[str]:
        return frozenset(self.outputs)

    def returns(self, name: str) -> bool:
        """Whether a value is among those that the model returns."""
        return name in self._returned

    def encoding(self, name: str) -> Encoding:
        """What the codes of a value mean. Raises ProgramError for a float value."""
        encoding = self.values[name].encoding
        if encoding is None:
            raise ProgramError(f"{name!r} is float and has no encoding")
        return encoding

    def real(self, name: str, array: np.ndarray) -> np.ndarray:
        """float32 numbers of a value: decoded codes, or the floats they are."""
        encoding = self.values[name].encoding
        return array if encoding is None else encoding.decode(array)

    def steps_between(self, name: str, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """float64: how far real numbers of a value lie apart, in steps of its grid."""
        encoding = self.encoding(name)
        return np.abs(one.astype(np.float64) - other) / encoding.block.expand(encoding.scale, one.shape)

    def count(self, name: str, axes: Sequence[int]) -> int:
        """Elements of a value along some axes, none of them the batch."""
        sizes = [self.values[name].shape[axis] for axis in axes]
        return math.prod(size for size in sizes if size is not None)

    def is_accumulator(self, name: str) -> bool:
        """Whether a value is the raw 32-bit sums of its node (a float output), not activation codes."""
        encoding = self.values[name].encoding
        return encoding is not None and encoding.format == self.profile.accumulator

    @property
    def dot_products(self) -> tuple[Conv | Linear, ...]:
        """The nodes with weights."""
        return tuple(node for node in self.everything if isinstance(node, Conv | Linear))

    def __str__(self) -> str:
        lines = [f"Program for {self.profile.name}: {len(self.nodes)} nodes"]
        lines += [f"  {name}: {self.values[name]}" for name in self.inputs]
        lines += [f"  {node.name}: {self.values[node.name]} ← {type(node).__name__}"
                  f"({', '.join(reads(node))})" for node in self.nodes]
        return "\n".join(lines)


def _are_the_same(codes: Encoding | None, others: Encoding | None) -> bool:
    """Whether codes stand for the same numbers; of those with several scales, which move with them, their format."""
    if codes is None or others is None or TENSOR == codes.block == others.block:
        return codes == others
    return codes.format == others.format


def _name_once(names: Sequence[str], named: set[str]) -> None:
    """Adds names to those that are taken. Raises ProgramError for one that is."""
    for name in names:
        if name in named:
            raise ProgramError(f"two values are called {name!r}")
        named.add(name)


def leaves(structure: Any) -> list[str]:
    """Value names in a structure of dicts, lists and tuples, in order."""
    match structure:
        case str():
            return [structure]
        case dict():
            return [leaf for item in structure.values() for leaf in leaves(item)]
        case list() | tuple():
            return [leaf for item in structure for leaf in leaves(item)]
        case None:
            return []
        case _:
            raise ProgramError(f"a model may return tensors in dicts, lists and tuples, "
                               f"not {type(structure).__name__}")


def fill(structure: Any, values: Mapping[str, Any]) -> Any:
    """The structure with each name replaced by its value."""
    match structure:
        case str():
            return values[structure]
        case dict():
            return {key: fill(item, values) for key, item in structure.items()}
        case list():
            return [fill(item, values) for item in structure]
        case tuple():
            return tuple(fill(item, values) for item in structure)
        case _:
            return structure

"""What a plan costs, as sums over its tensors and over pairs of them: what a solver can reckon with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from fewbits.graph.graph import Node
from fewbits.numerics.encoding import ENCODING_BYTES
from fewbits.numerics.energy import costs_45nm
from fewbits.numerics.formats import Int
from fewbits.numerics.packing import packed_bytes
from fewbits.program.program import leaves
from fewbits.quant.plan import Treatment
from fewbits.search.space import Assignment, Space

_NO_VALUE = (Treatment.FUSED, Treatment.GONE, Treatment.SIZE)


@dataclass(frozen=True, eq=False)
class Cost:
    """constant + Σ linear[g][candidate] + Σ pairs[g, h][candidate of g, of h]; or, for memory that is used again, the
    largest of several such sums (`peaks`)."""

    constant: float = 0.0
    linear: Mapping[int, np.ndarray] = field(default_factory=dict)
    pairs: Mapping[tuple[int, int], np.ndarray] = field(default_factory=dict)
    peaks: "tuple[Cost, ...]" = ()

    def of(self, assignment: Assignment) -> float:
        """The cost of an assignment."""
        if self.peaks:
            return max(peak.of(assignment) for peak in self.peaks)
        return (self.constant + sum(float(each[assignment[group]]) for group, each in self.linear.items())
                + sum(float(each[assignment[g], assignment[h]]) for (g, h), each in self.pairs.items()))


class _Sizes:
    """Numbers and bits of the groups of a space, for one input."""

    def __init__(self, space: Space):
        self.space = space
        self.index = {group.site: number for number, group in enumerate(space.groups)}
        shapes = space.model.shapes()
        self.plan = space.plan(space.finest)
        self.shapes = {group.site: (tuple(space.model.tensor(group.site).shape) if group.kind == "weight"
                                    else tuple(1 if size is None else size for size in shapes[group.site] or ()))
                       for group in space.groups}
        self.bits = {group.site: np.array([spec.format.bits for spec in group.specs], float) for group in space.groups}

    def count(self, site: str) -> int:
        return prod(self.shapes[site])

    def stored(self, site: str) -> np.ndarray:
        """Bytes of the packed codes of each candidate; floats and tables are stored as the int8 they become."""
        group = self.space.groups[self.index[site]]
        return np.array([packed_bytes(self.count(site), spec.format if isinstance(spec.format, Int) else Int(8))
                         for spec in group.specs], float)

    def scales(self, site: str) -> np.ndarray:
        """Bytes of the scales of each candidate."""
        group = self.space.groups[self.index[site]]
        return np.array([4 * prod(spec.block.scale_shape(self.shapes[site])) for spec in group.specs], float)

    def dots(self) -> "list[tuple[Node, str, str, int]]":
        """(node, weight, what it reads, products) of each dot product whose operands are both searched."""
        found = []
        graph = self.space.model.graph
        for node in graph.everything:
            if node.role != "dot":
                continue
            weight, source = node["weight"].name, self.plan.grid(node["input"].name)
            if weight in self.index and source in self.index:
                outputs = prod(1 if size is None else size for size in node.shape or ())
                per_output = self.count(weight) // self.shapes[weight][0]
                found.append((node, weight, source, outputs * per_output * graph.repeats.get(node.name, 1)))
        return found


def widths(space: Space) -> list[list[int]]:
    """Bits of each candidate of each group."""
    return [[spec.format.bits for spec in group.specs] for group in space.groups]


def file_bytes(space: Space) -> Cost:
    """Bytes of packed weights, their scales, biases in 32 bits, and the encodings of activations: what any file of the
    program must hold."""
    sizes = _Sizes(space)
    biases = sum(4 * space.model.tensor(node["bias"].name).numel() for node in space.model.graph.everything
                 if node.role == "dot" and node["bias"] is not None)
    encodings = ENCODING_BYTES * sum(site.kind in ("input", "activation") and site.spec is not None
                                     for site in sizes.plan.sites.values())
    return Cost(biases + encodings, {sizes.index[group.site]: sizes.stored(group.site) + sizes.scales(group.site)
                         for group in space.groups if group.kind == "weight"})


def weight_memory(space: Space) -> Cost:
    """Bytes of packed weights."""
    sizes = _Sizes(space)
    return Cost(0.0, {sizes.index[group.site]: sizes.stored(group.site) for group in space.groups
                      if group.kind == "weight"})


def tensor_bits(space: Space) -> Cost:
    """Bits of all weights, and of every activation of one input, each once."""
    sizes = _Sizes(space)
    return Cost(0.0, {number: sizes.count(group.site) * sizes.bits[group.site]
                      for number, group in enumerate(space.groups)})


def bit_operations(space: Space) -> Cost:
    """Products times the bits of both operands (BOPs), of one input. Source: Baskin et al. 2018, arXiv:1804.10969."""
    sizes = _Sizes(space)
    pairs: dict[tuple[int, int], np.ndarray] = {}
    for _, weight, source, products in sizes.dots():
        key = sizes.index[weight], sizes.index[source]
        pairs[key] = pairs.get(key, 0.0) + products * np.outer(sizes.bits[weight], sizes.bits[source])
    return Cost(0.0, {}, pairs)


def energy(space: Space) -> Cost:
    """Picojoules of one input by the 45 nm table: products of codes in int8, every byte from a 32 KB memory, weights
    read once, activations written once and read by each layer that takes them."""
    sizes, table = _Sizes(space), costs_45nm()
    per_byte = table.access["32 KB cache"].pJ[0] / 8
    product = table.operations["multiply int8"].pJ[0] + table.operations["add int32"].pJ[0]
    constant = sum(products for *_, products in sizes.dots()) * product
    linear = {}
    for number, group in enumerate(space.groups):
        times = 1 if group.kind == "weight" else 1 + len(space.model.graph.consumers[group.site])
        linear[number] = times * per_byte * sizes.count(group.site) * sizes.bits[group.site] / 8
    return Cost(constant, linear)


def activation_memory(space: Space) -> Cost:
    """The most bytes of activations that are alive at once, one input, none shared but by what only reshapes: at each
    node what it reads and writes, and what later ones still read. What is not searched counts 32 bits a number."""
    sizes, graph, steps = _Sizes(space), space.model.graph, space.plan(space.finest).steps
    shares: dict[str, str] = {}  # a value that has no memory of its own, and whose it lies in
    made = {item.name: 0 for item in graph.inputs}
    for place, node in enumerate(graph.everything):
        if node.refs and (steps[node.name].treatment in _NO_VALUE or node.op == "reshape"):
            shares[node.name] = shares.get(node.refs[0], node.refs[0])
        elif steps[node.name].treatment not in _NO_VALUE:
            made[node.name] = place
    last = dict(made)
    for place, node in enumerate(graph.everything):
        for name in (node.name, *node.refs):
            last[shares.get(name, name)] = place
    for name in leaves(graph.structure):
        last[shares.get(name, name)] = len(graph.everything)
    shapes = space.model.shapes()
    alive = [(name, prod(1 if size is None else size for size in shapes[name] or ()), first, last[name])
             for name, first in made.items()]
    peaks, seen = [], set()
    for place in range(len(graph.everything)):
        here = tuple((name, count) for name, count, first, end in alive if first <= place <= end)
        if here in seen:
            continue
        seen.add(here)
        constant, linear = 0.0, {}
        for name, count in here:
            number = sizes.index.get(sizes.plan.grid(name))
            if number is None:
                constant += 4 * count
            else:
                linear[number] = linear.get(number, 0.0) + np.ceil(
                    count * sizes.bits[space.groups[number].site] / 8)
        peaks.append(Cost(constant, dict(sorted(linear.items()))))
    return Cost(peaks=tuple(peaks))


COSTS: Mapping[str, Callable[[Space], Cost]] = {
    "bytes": file_bytes, "bits": tensor_bits, "bops": bit_operations, "energy": energy,
    "weight-memory": weight_memory, "activation-memory": activation_memory,
}
"""By the names that users write."""

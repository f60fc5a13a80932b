"""Inner values: sums and products of activations that no dot product reads.

A residual sum, the scores in front of a softmax, the cell of an LSTM: whatever they lose to 8 bits goes on from one
sum to the next, or to the user, and no product of matrices asks for so few. Recipes may give them more (`inner`), up to
what a profile holds (`Profile.inner_bits`). Why these and no others: docs/decisions/0008-inner-values.md.
"""

from collections.abc import Iterator

from fewbits.graph.graph import Graph, Node, Param, Ref

_MAKERS = ("add", "sub", "matmul", "mul", "concat")
_SUMS = ("add", "sub")
_TERMS = ("mul", "concat")  # inner only as terms of inner sums: products, and tokens joined in front of their positions
_SCALINGS = ("mul", "div")  # by a number
_FOR_THEIR_SAKE = ("add", "sub", "mul", "softmax", "masked_softmax", "layer_norm", "rms_norm", "group_norm")
_ALSO = ("function",)  # a function alone loses little: it is steep nowhere
_MOVES = ("reshape", "transpose", "slice", "select", "split", "item", "dropout", "identity", "cast")

_Reader = Node | None
"""None: the user, to whom it is returned."""


def inner_values(graph: Graph, returned: bool = True) -> frozenset[str]:
    """Names of the inner values, each by the node whose result is brought to codes. returned: whether what the network
    returns may be one."""
    found = _Inner(graph, returned)
    return frozenset(node.name for node in graph.everything if found.is_inner(node))


class _Inner:
    def __init__(self, graph: Graph, returned: bool):
        self.graph, self.returned = graph, returned
        self._known: dict[str, bool] = {}
        self._states: dict[str, list[Node]] = {}
        self._leaving: dict[str, list[tuple[Node, int]]] = {}  # by value of a body: recurrences and which result it is
        for node in graph.everything:
            if node.op == "state":
                self._states.setdefault(str(node["following"]), []).append(node)
            for place, result in enumerate(node.body.results if node.body else ()):
                self._leaving.setdefault(result, []).append((node, place))

    def is_inner(self, node: Node) -> bool:
        if node.name not in self._known:
            self._known[node.name] = False  # while it is found out
            self._known[node.name] = self._is_made(node) and self._goes_on(node)
        return self._known[node.name]

    def _is_made(self, node: Node) -> bool:
        if node.dtype not in (None, "float32"):
            return False
        if _is_scaling(node):
            return self._source_is_inner(node)
        other = node.arguments.get("other", node.arguments.get("mat2"))
        return node.op == "concat" or (node.op in _MAKERS and isinstance(other, Ref | Param))

    def _source_is_inner(self, node: Node) -> bool:
        source = self.graph.by_name.get(node.refs[0])
        while source is not None and source.op in _MOVES:
            source = self.graph.by_name.get(source.refs[0])
        return source is not None and self.is_inner(source)

    def _goes_on(self, node: Node) -> bool:
        """Whether all that reads it takes any codes, and something does that gains by it; of a term, whether it goes
        into inner sums alone."""
        readers = list(self._readers(node.name))
        if not all(self._takes_any(reader) for reader in readers):
            return False
        if node.op in _TERMS and not _is_scaling(node):
            return all(reader is None or (reader.op in _SUMS and self.is_inner(reader)) for reader in readers)
        return any(reader is None or (reader.op in _FOR_THEIR_SAKE and not _is_scaling(reader)) for reader in readers)

    def _takes_any(self, reader: _Reader) -> bool:
        if reader is None:
            return self.returned
        return reader.op in (*_FOR_THEIR_SAKE, *_ALSO)

    def _readers(self, name: str) -> Iterator[_Reader]:
        """What reads a value, moved or scaled; recurrences, and states that begin with other codes, for themselves."""
        if name in self.graph.outputs:
            yield None
        for state in self._states.get(name, ()):
            if isinstance(state["first"], Ref):
                yield state
            yield from self._readers(state.name)
        for recurrence, place in self._leaving.get(name, ()):
            for item in self.graph.consumers[recurrence.name]:
                if item["argument1"] == place:
                    yield from self._readers(item.name)
        for reader in self.graph.consumers[name]:
            if reader.op in _MOVES or _is_scaling(reader):
                yield from self._readers(reader.name)
            else:
                yield reader


def _is_scaling(node: Node) -> bool:
    return node.op in _SCALINGS and isinstance(node["other"], int | float)

"""YAML a person wrote, as plain values: bounded before anything is built of it, and no key twice."""

from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fewbits.limits import DOCUMENT_DEPTH, DOCUMENT_VALUES


class DocumentError(Exception):
    """Why a text is no document, for the sentence about its file."""


def read_document(data: bytes) -> Any:
    """Lists, tables, texts, numbers and dates. data: UTF-8.

    Anchors are taken, and what they repeat counts as often as it stands there. Raises DocumentError for what is no
    YAML of one document, has more than `DOCUMENT_VALUES` values or `DOCUMENT_DEPTH` levels, says a key twice, or writes
    a number or date that is none.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"is no UTF-8 text (byte {error.start}): save it as UTF-8") from None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _Measure().size(root, 0)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f" at line {error.problem_mark.line + 1}"
        raise DocumentError(f"is no YAML: {error.problem or error.context}{where}") from None
    except yaml.YAMLError as error:
        raise DocumentError(f"is no YAML: {' '.join(str(error).split())[:200]}") from None
    except RecursionError:
        raise DocumentError(f"nests more than {DOCUMENT_DEPTH} levels: write it flat") from None
    except (ValueError, OverflowError, TypeError, AttributeError) as error:  # a number or date that Python cannot build
        raise DocumentError(f"writes a number or date that is none ({' '.join(str(error).split())[:100]})") from None


class _Loader(yaml.SafeLoader):
    """Stops where a document has more values or levels than it may, before it is read to its end."""

    _values = _depth = 0

    def get_event(self) -> Any:
        event = super().get_event()
        self._values += isinstance(event, yaml.NodeEvent)
        self._depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = 0 if event is None or event.start_mark is None else event.start_mark.line + 1
        if self._values > DOCUMENT_VALUES:
            raise DocumentError(f"has more than {DOCUMENT_VALUES} values (line {line}): write less")
        if self._depth > DOCUMENT_DEPTH:
            raise DocumentError(f"nests more than {DOCUMENT_DEPTH} levels (line {line}): write it flat")
        return event


class _Measure:
    """How many values a node stands for, anchors written out."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def size(self, node: Node, depth: int) -> int:
        if depth > DOCUMENT_DEPTH:
            raise DocumentError(f"nests more than {DOCUMENT_DEPTH} levels (line {_line(node)}): write it flat")
        if isinstance(node, ScalarNode):
            return 1
        if id(node) in self._open:
            raise DocumentError(f"repeats an anchor inside itself (line {_line(node)}): write it out")
        if id(node) not in self._sizes:
            self._open.add(id(node))
            self._sizes[id(node)] = 1 + sum(self.size(child, depth + 1) for child in _children(node))
            self._open.remove(id(node))
        if self._sizes[id(node)] > DOCUMENT_VALUES:
            raise DocumentError(f"stands for more than {DOCUMENT_VALUES} values (line {_line(node)}), anchors written "
                                "out: write less")
        return self._sizes[id(node)]


def _children(node: Node) -> list[Node]:
    if isinstance(node, SequenceNode):
        return list(node.value)
    assert isinstance(node, MappingNode), "a node is a scalar, a sequence or a mapping"
    keys: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if key.value in keys:
                raise DocumentError(f"says {key.value[:60]!r} twice (line {_line(key)}): leave one out")
            keys.add(key.value)
    return [item for pair in node.value for item in pair]


def _line(node: Node) -> int:
    return node.start_mark.line + 1 if node.start_mark is not None else 0

"""Operators that select by value, as detectors do behind their heads, and the submodules that hold none."""

import json
from collections.abc import Collection

from fewbits.graph.graph import Graph

_SELECTING = frozenset((
    "argmax", "argmin", "argsort", "gather", "index", "index_select", "masked_select", "max", "min", "nms", "nonzero",
    "sort", "topk", "unique", "unique2"))
_SHOWN = 8


def way_by_parts(graph: Graph, refused: Collection[str]) -> str:
    """A line that says how to capture by parts, where one of the refused nodes selects by value; else ''.

    The parts are the largest submodules with weights that hold no refused node.
    """
    selecting = [node for node in graph.nodes if node.name in refused
                 and getattr(node.target, "__name__", "").split(".")[0] in _SELECTING]
    if not selecting:
        return ""
    tainted = {path for node in graph.nodes if node.name in refused for path in _paths(node.module)}
    weighty = [path for node in graph.nodes if node.role == "dot"
               for path in _paths(node.module)]
    parts: list[str] = []
    for path in dict.fromkeys(weighty):
        if path not in tainted and not any(path.startswith(f"{larger}.") for larger in parts):
            parts.append(path)
    if not parts:
        return ""
    shown = f"{json.dumps(parts[:_SHOWN])}{' and more' if parts[_SHOWN:] else ''}"
    return f"\nselecting by value has no integer form: go by parts, fb.capture(net, example, parts={shown})"


def _paths(module: str) -> list[str]:
    """`a.b.c` and what it stands in, outermost first: a, a.b, a.b.c; none for the network itself."""
    names = module.split(".") if module else []
    return [".".join(names[:end]) for end in range(1, len(names) + 1)]

"""What operators of a program were called in files of earlier versions, resolved before their fields are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class _Old:
    """A name that a file may bear. said: fields that its operator no longer has, with the values that chose this
    meaning of it; False was left out."""

    name: str
    now: str
    said: Mapping[str, bool] = field(default_factory=dict)


_OLD = (
    _Old("Add", "Sub", {"subtract": True}),
    _Old("Add", "Add", {"subtract": False}),
    _Old("Larger", "Min", {"least": True}),
    _Old("Larger", "Max", {"least": False}),
    _Old("Quotient", "Div"),
    _Old("Pick", "Gather"),
)


def present_name(name: str, fields: Any) -> tuple[str, Any]:
    """Name and fields of a node as they are called today; both unchanged where they are of today, or of no version."""
    if isinstance(fields, dict):
        for old in _OLD:
            if old.name == name and all(fields.get(each, False) is value for each, value in old.said.items()):
                return old.now, {each: value for each, value in fields.items() if each not in old.said}
    return name, fields

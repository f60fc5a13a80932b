"""docs/api.md, made of docstrings and of api_examples.md: `python -m fewbits.documents.api > docs/api.md`."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from types import ModuleType

import fewbits.testing as testing
from fewbits import public

_HEAD = """# API reference

Every name of `fewbits`, as `import fewbits as fb`, and of `fewbits.testing`. In the examples `net` is a network,
`example` and `batches` are inputs of it, `labelled` pairs of inputs and classes, `model` the network captured and
folded, `sim` its simulation, `live` one with batch norm kept, `prog` the program; a test runs them. Made by
`python -m fewbits.documents.api`.
"""


def document() -> str:
    """The page."""
    parts = [_HEAD]
    for title, names in chapters().items():
        parts.append(f"## {title}\n")
        parts += [_entry(name, getattr(public, name), "fb") for name in names]
    parts.append("## fewbits.testing: checks for additions\n")
    parts += [_entry(name, getattr(testing, name), "fewbits.testing") for name in names_of_testing()]
    return "\n".join(parts)


@cache
def chapters() -> Mapping[str, tuple[str, ...]]:
    """Public names by chapter, as api_examples.md has them."""
    return {title: tuple(re.findall(r"^### (\w+)$", text, re.MULTILINE)) for title, text in
            re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", _source(), re.MULTILINE | re.DOTALL)}


@cache
def examples() -> Mapping[str, str]:
    """The examples of api_examples.md, by name."""
    return dict(re.findall(r"^### (\w+)\n\n```python\n(.*?)\n```$", _source(), re.MULTILINE | re.DOTALL))


def _source() -> str:
    return resources.files(__package__ or "").joinpath("api_examples.md").read_text(encoding="utf-8")


def names_of_testing() -> list[str]:
    """The public names of `fewbits.testing`."""
    return sorted(name for name, value in vars(testing).items()
                  if not name.startswith("_") and not isinstance(value, ModuleType))


def _entry(name: str, value: object, owner: str) -> str:
    doc = inspect.getdoc(value) or ""
    text, _, example = doc.partition("\n>>> ")
    lines = [f"### {owner}.{name}\n", f"```text\n{_signature(name, value)}\n```\n", _prose(text)]
    members = list(_members(value))
    if members:
        lines += [f"- `.{member}`: {told}" for member, told in members] + [""]
    if example:
        lines.append(f"```pycon\n>>> {example}\n```\n")
    if name in examples() and owner == "fb":
        lines.append(f"```python\n{examples()[name]}\n```\n")
    return "\n".join(lines)


def _prose(doc: str) -> str:
    """A docstring as paragraphs; signs of Markdown stay what they are."""
    return doc.replace("*", "\\*").replace("<", "\\<") + "\n"


def _signature(name: str, value: object) -> str:
    """As it stands in the source."""
    if isinstance(value, ModuleType):
        return f"{name}: {', '.join(value.__all__)}"
    source = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value))))  # pyright: ignore[reportArgumentType]
    node = source.body[0]
    if isinstance(node, ast.FunctionDef):
        return f"{name}({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
    assert isinstance(node, ast.ClassDef)
    fields = [ast.unparse(each) for each in node.body
              if isinstance(each, ast.AnnAssign) and not ast.unparse(each.target).startswith("_")]
    init = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if init is not None:
        init.args.args = init.args.args[1:]
        return f"class {name}({ast.unparse(init.args)})"
    return f"class {name}" + (f"({', '.join(fields)})" if fields else "")


def _members(value: object) -> Iterator[tuple[str, str]]:
    """Public methods and properties that a class has itself, with the first sentence of each."""
    if not inspect.isclass(value):
        return
    for name, member in vars(value).items():
        doc = inspect.getdoc(member)
        if name.startswith("_") or not doc or not (callable(member) or isinstance(member, property | classmethod)):
            continue
        told = " ".join(doc.split("\n\n")[0].split())
        yield (name if isinstance(member, property) else f"{name}()"), _prose(told)[:-1]


if __name__ == "__main__":
    sys.stdout.write(document())

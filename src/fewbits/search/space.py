"""What a search may decide: the tensors of a model, and the candidates that each may become."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fewbits.errors import EncodingError, SearchError
from fewbits.graph.model import Model
from fewbits.quant.plan import Plan
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe, Rule, SpecText, Wish, first_mistake, recipe
from fewbits.quant.spec import Spec
from fewbits.ranges.registry import parse_rule

Assignment = tuple[int, ...]
"""One candidate per group, by its number."""


@dataclass(frozen=True)
class Menu:
    """Candidates of weights and of activations, as recipes write them, the finest first."""

    weights: tuple[SpecText, ...]
    activations: tuple[SpecText, ...]


def _menu(weights: Sequence[Mapping[str, Any]], activations: Sequence[Mapping[str, Any]]) -> Menu:
    return Menu(tuple(SpecText.model_validate(dict(text)) for text in weights),
                tuple(SpecText.model_validate(dict(text)) for text in activations))


_WIDTHS = (8, 7, 6, 5, 4, 3, 2)
_DFP = {"block": "tensor", "symmetric": True}
MENUS: Mapping[str, Menu] = {
    "int": _menu([{"format": f"int{bits}"} for bits in _WIDTHS],
                 [{"format": f"uint{bits}", "symmetric": False} for bits in _WIDTHS]),
    "dfp": _menu([{"format": f"int{bits}", **_DFP, "scale": "dynamic-weights"} for bits in (8, 4, 2)],
                 [{"format": f"int{bits}", **_DFP, "scale": "dynamic-activations"} for bits in (8, 4, 2)]),
    "minifloat": _menu([{"format": "e4m3-finite-zero", **_DFP, "scale": "power-of-two", "integers": "int8"}], []),
    "pow2": _menu([{"format": f"pow2-{bits}", **_DFP, "scale": "unit", "integers": "int8"} for bits in (4, 3)], []),
    "nf4": _menu([{"format": "nf4", "symmetric": True, "integers": "int8"}], []),
}
"""Families of candidates by name; several are joined."""


RANGES = ("minmax", "mse")
"""Range rules that integers of a menu come with where none are named."""


def menu(names: str | Sequence[str], ranges: str | Sequence[str] = RANGES) -> Menu:
    """The families of some names, `int,dfp` or a list, joined; integers once for each range rule. Raises SearchError
    for a name that is none, for none, and where no candidate of activations is left; for a range rule that is none."""
    wanted = words(names)
    unknown = [name for name in wanted if name not in MENUS]
    if unknown or not wanted:
        raise SearchError(f"no menu is called {unknown[0]!r}: choose some of {', '.join(MENUS)}" if unknown else
                          f"the menu is empty: choose some of {', '.join(MENUS)}")
    rules = words(ranges)
    if not rules:
        raise SearchError(f"the menu has no range rule: choose some, such as {','.join(RANGES)}")
    for rule in rules:
        try:
            parse_rule(rule)
        except EncodingError as error:
            raise SearchError(f"--ranges: {error}") from None
    joined = Menu(tuple(text for name in wanted for text in _ranged(MENUS[name].weights, rules)),
                  tuple(text for name in wanted for text in _ranged(MENUS[name].activations, rules)))
    if not joined.activations:
        raise SearchError(f"menu {','.join(wanted)} has no candidates for activations: add int or dfp")
    return joined


def words(names: str | Sequence[str]) -> list[str]:
    """The names of a text that commas join (those within brackets do not), or of a list."""
    parts = re.split(r",(?![^(]*\))", names) if isinstance(names, str) else names
    return [name.strip() for name in parts if name.strip()]


def _ranged(texts: Sequence[SpecText], rules: Sequence[str]) -> list[SpecText]:
    """Each text once for each range rule; those that say how their scale is found stay as they are."""
    found = []
    for text in texts:
        found += ([text.model_copy(update={"range": rule}) for rule in rules]
                  if text.scale is None and text.integers is None else [text])
    return found


@dataclass(frozen=True)
class Group:
    """A tensor that is decided by itself. kind: weight, activation or input; node: which a rule names to mean it;
    specs: of its candidates."""

    site: str
    kind: str
    node: str
    specs: tuple[Spec, ...]


@dataclass(frozen=True, eq=False)
class Space:
    """A model, the recipe that decides what is not searched, and the groups with their candidates."""

    model: Model
    base: Recipe
    menu: Menu
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, model: Model, base: "str | Recipe", menu: Menu, repairs: Sequence[str] | None = None) -> "Space":
        """Every weight, activation and input that the base recipe brings to codes by a range of its own. repairs: in
        place of those that the recipe names. Raises SearchError where there is none, or a recipe takes no repairs."""
        decided = recipe(base)
        if repairs is not None:
            try:
                decided = Recipe.model_validate(decided.model_dump(exclude_none=True) | {"repairs": tuple(repairs)})
            except ValidationError as error:
                raise SearchError(f"repairs {', '.join(repairs)}: {first_mistake(error)}") from None
        resolved = plan(model, decided)
        nodes = {param: node.name for node in model.graph.everything if node.body is None
                 for param in node.params}
        groups = []
        for site in resolved.sites.values():
            if site.spec is None or site.kind not in ("weight", "activation", "input") or site.spec.is_dynamic:
                continue
            texts = menu.weights if site.kind == "weight" else menu.activations
            node = nodes[site.name] if site.kind == "weight" else site.name
            groups.append(Group(site.name, site.kind, node, tuple(text.over(site.spec) for text in texts)))
        if not groups:
            raise SearchError("the recipe brings no tensor to codes: there is nothing to search")
        return cls(model, decided, menu, tuple(groups))

    @property
    def finest(self) -> Assignment:
        """The first candidate everywhere."""
        return (0,) * len(self.groups)

    def recipe(self, assignment: Sequence[int | None]) -> Recipe:
        """The base recipe with a rule per group: what a plan file holds; None leaves a tensor in float."""
        rules, inputs = list(self.base.rules), self.base.inputs
        for group, number in zip(self.groups, assignment, strict=True):
            texts = self.menu.weights if group.kind == "weight" else self.menu.activations
            text: Wish = "float" if number is None else texts[number]
            if group.kind == "input":
                inputs = text
            else:
                what = "weights" if group.kind == "weight" else "activations"
                rules.append(Rule.model_validate({"module": escaped(group.node), what: text}))
        return self.base.model_copy(update={"rules": tuple(rules), "inputs": inputs})

    def plan(self, assignment: Assignment) -> Plan:
        """The plan of an assignment. Raises SearchError where a rule of one tensor would decide another too."""
        resolved = plan(self.model, self.recipe(assignment))
        for group, number in zip(self.groups, assignment, strict=True):
            if resolved.sites[group.site].spec != group.specs[number]:
                raise SearchError(f"the candidate of {group.site!r} is decided by another rule as well "
                                  f"({resolved.sites[group.site].because}): rename the module, or leave out the rule")
        return resolved


def escaped(name: str) -> str:
    """A name as a glob that means just itself."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)

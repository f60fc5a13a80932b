"""Recipes: what is wanted of any model, as a file a person writes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fewbits.errors import EncodingError, RecipeError
from fewbits.files import read_whole
from fewbits.limits import RECIPE_BYTES
from fewbits.numerics.block import parse_block
from fewbits.numerics.formats import Int, parse
from fewbits.numerics.rounding import RULES
from fewbits.options import choice, options_checked
from fewbits.quant.document import DocumentError, read_document
from fewbits.quant.presets import preset, presets
from fewbits.quant.spec import Spec
from fewbits.ranges.registry import parse_rule
from fewbits.ranges.scale import Convention

PLAIN_WEIGHTS = Spec(parse("int8"), symmetric=True, block=parse_block("channel"))
PLAIN_ACTIVATIONS = Spec(parse("uint8"), symmetric=False, block=parse_block("tensor"))


_SHOWN, _LONGEST = 60, 400  # letters of a value, and of a mistake, in a message


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SpecText(_Strict):
    """A Spec as recipes write it; what a rule leaves out stays as it was."""

    format: str | None = None
    symmetric: bool | None = None
    block: str | tuple[int, ...] | None = None
    range: str | None = None
    scale: Convention | None = None
    integers: Literal["int8"] | None = None
    rounding: str | None = None
    method: str | None = None

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str | None) -> str | None:
        if value is not None:
            _sentence(parse, value)
        return value

    @field_validator("block")
    @classmethod
    def _known_block(cls, value: Any) -> Any:
        if value is not None:
            _sentence(parse_block, value)
        return value

    @field_validator("range")
    @classmethod
    def _known_range(cls, value: str | None) -> str | None:
        if value is not None:
            _sentence(parse_rule, value)
        return value

    @field_validator("rounding")
    @classmethod
    def _known_rounding(cls, value: str | None) -> str | None:
        if value is not None and value not in RULES:
            raise ValueError(f"no rounding is called {value!r}: choose one of {', '.join(RULES)}")
        return value

    def over(self, spec: Spec) -> Spec:
        """`spec` with what this text says put over it."""
        return Spec(
            format=spec.format if self.format is None else parse(self.format),
            symmetric=spec.symmetric if self.symmetric is None else self.symmetric,
            block=spec.block if self.block is None else parse_block(self.block),
            range=spec.range if self.range is None else self.range,
            scale=spec.scale if self.scale is None else self.scale,
            integers=spec.integers if self.integers is None else Int(8),
            rounding=spec.rounding if self.rounding is None else self.rounding,
            method=spec.method if self.method is None else None if self.method == "none" else self.method)


RepairName = Literal["equalization", "high-bias-absorption", "smoothing", "sequential-mse", "gptq", "adaround",
                     "block-reconstruction", "bias-correction"]
"""Repairs by the names that recipes write, in the order in which they are made (optimize/repairs.py)."""

_REPAIRS_AS_VERBS: Mapping[str, RepairName] = MappingProxyType({
    "equalize": "equalization", "absorb-high-biases": "high-bias-absorption", "smooth": "smoothing",
    "reconstruct-blocks": "block-reconstruction", "correct-biases": "bias-correction"})
"""The names of the functions that make them, which are taken, too."""

Wish = SpecText | Literal["float"]  # what becomes of a tensor; `float` leaves it as it is


@options_checked
def over(wish: Wish, spec: Spec | None, otherwise: Spec) -> Spec | None:
    """What a wish makes of `spec`: None where it wants floats. `otherwise` is what it is put over where an earlier
    wish, now overruled, wanted floats."""
    return None if wish == "float" else wish.over(spec or otherwise)


class Rule(_Strict):
    """Specs for some nodes: those of an operator, those under a module path (a glob), the first or last layer with
    weights, or what all of these say together.

    weights, activations: of the nodes, `float` leaves them as they are; inputs: of the values that layers with weights
    take, after what `activations` say of them; keep_float: leave these nodes in float; optional: matching nothing is
    no error.
    """

    op: str | None = None
    module: str | None = None
    layer: Literal["first", "last"] | None = None
    weights: Wish | None = None
    activations: Wish | None = None
    inputs: Wish | None = None
    keep_float: bool = False
    optional: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> "Rule":
        if self.op is None and self.module is None and self.layer is None:
            raise ValueError("a rule needs `op`, `module` or `layer`, to say which nodes it means")
        if self.weights is None and self.activations is None and self.inputs is None and not self.keep_float:
            raise ValueError("a rule needs `weights`, `activations`, `inputs` or `keep_float`, to say what it wants")
        return self

    def __str__(self) -> str:
        parts = [f"{key}: {value}" for key, value in
                 (("op", self.op), ("module", self.module), ("layer", self.layer)) if value]
        return "{" + ", ".join(parts) + "}"


class Recipe(_Strict):
    """Rules from intent to Specs; later rules win. weights, activations: `float` leaves them as they are; inputs: of
    the model, where they are not as other activations are; inner: of sums and products of activations that no dot
    product takes (quant/inner.py), where they are not as others are; outputs: `float` leaves the result of a last
    dot product in its accumulator's precision, `quantized` brings it to activation codes; repairs: made after
    calibration, in the order of `RepairName` whatever the order here."""

    version: Literal[1]
    weights: Wish
    activations: Wish
    inputs: Wish | None = None
    inner: Wish | None = None
    outputs: Literal["float", "quantized"] = "float"
    rules: tuple[Rule, ...] = Field(default=())
    repairs: tuple[RepairName, ...] = Field(default=())

    @field_validator("repairs", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return [_repair_name(name) for name in value] if isinstance(value, list | tuple) else value

    @field_validator("repairs")
    @classmethod
    def _each_once_and_in_order(cls, value: tuple[RepairName, ...]) -> tuple[RepairName, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a repair is made once: leave out what stands there twice")
        if {"gptq", "adaround"} <= set(value):
            raise ValueError("gptq and adaround both choose the rounding of weights: leave one of them out")
        return tuple(name for name in get_args(RepairName) if name in value)

    @model_validator(mode="after")
    def _repaired_or_trained(self) -> "Recipe":
        wishes = [self.weights, self.activations, self.inputs, self.inner]
        wishes += [wish for rule in self.rules for wish in (rule.weights, rule.activations, rule.inputs)]
        methods = [wish.method for wish in wishes if isinstance(wish, SpecText) and wish.method not in (None, "none")]
        if self.repairs and methods:
            raise ValueError(f"repairs are made after training, and method {methods[0]} learns in it: leave out one of "
                             "the two")
        return self

    @property
    def weight_spec(self) -> Spec | None:
        """What weights become where no rule says otherwise; None: they stay float."""
        return over(self.weights, None, PLAIN_WEIGHTS)

    @property
    def activation_spec(self) -> Spec | None:
        """What activations become where no rule says otherwise; None: they stay float."""
        return over(self.activations, None, PLAIN_ACTIVATIONS)

    @property
    def inner_spec(self) -> Spec | None:
        """What inner values become where no rule says otherwise; None: they stay float."""
        return (self.activation_spec if self.inner is None
                else over(self.inner, self.activation_spec, PLAIN_ACTIVATIONS))

    @property
    def input_spec(self) -> Spec | None:
        """What the model's inputs become; None: they stay float."""
        return (self.activation_spec if self.inputs is None
                else over(self.inputs, self.activation_spec, PLAIN_ACTIVATIONS))


def recipe(source: "str | Path | Recipe", repairs: Sequence[str] = ()) -> Recipe:
    """A recipe from a preset's name, the path of a YAML file, or a recipe itself. repairs: made besides its own.

    Raises RecipeError, naming the file and the key, when it does not read, and for repairs that it cannot have.
    """
    found = source if isinstance(source, Recipe) else _read(source)
    if not repairs:
        return found
    added = [name for name in map(_repair_name, repairs) if name not in found.repairs]
    try:
        return Recipe.model_validate(found.model_dump() | {"repairs": [*found.repairs, *added]})
    except ValidationError as error:
        raise RecipeError(first_mistake(error).removeprefix("repairs: ")) from error


def _read(source: str | Path) -> Recipe:
    if str(source) in presets():
        data = preset(str(source))
    elif "\0" not in str(source) and os.path.lexists(source):
        data = read_whole(source, RECIPE_BYTES, "a recipe")
    else:
        raise RecipeError(f"no recipe is called {str(source)!r}, and no file: "
                          f"{choice(str(source), presets(), 'docs/recipes.md')}")
    try:
        return Recipe.model_validate(read_document(data) or {})
    except DocumentError as error:
        raise RecipeError(f"recipe {source} {error}") from None
    except ValidationError as error:
        raise RecipeError(f"recipe {source}: {first_mistake(error)}") from error


def _repair_name(name: Any) -> Any:
    return _REPAIRS_AS_VERBS.get(name, name) if isinstance(name, str) else name


def _sentence(check: Any, value: Any) -> None:
    try:
        check(value)
    except EncodingError as error:
        raise ValueError(str(error)) from error


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def first_mistake(error: ValidationError) -> str:
    """The first of what is wrong with a recipe, in a sentence."""
    first = error.errors()[0]
    if first["loc"][:1] == ("repairs",) and first["type"] == "literal_error":
        return f"no repair is called {first['input']!r}: choose among {', '.join(get_args(RepairName))}"
    where = ".".join(str(part) for part in first["loc"] if part != SpecText.__name__)
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}: docs/recipes.md has the recipe language"
    if first["type"] == "model_type":
        return f"{where}: {_short(first['input'])} is neither `float` nor keys such as {{format: int8}}"
    message = first["msg"].removeprefix("Value error, ")[:_LONGEST]
    return f"{where}: {message}" if where else message

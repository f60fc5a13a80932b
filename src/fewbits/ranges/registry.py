"""Range rules by the name a recipe uses, and how a recipe writes their parameters."""

import re
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

from fewbits.errors import EncodingError
from fewbits.ranges.dynamic import DynamicRule
from fewbits.ranges.isotone import IsotoneRule
from fewbits.ranges.kl import KlRule
from fewbits.ranges.moving_average import MovingAverageRule
from fewbits.ranges.mse import MseRule
from fewbits.ranges.percentile import PercentileRule
from fewbits.ranges.rule import MinMaxRule, RangeRule

_TEXT = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")

RANGE_RULES: Mapping[str, type[RangeRule]] = MappingProxyType({rule.name: rule for rule in (
    MinMaxRule, PercentileRule, MseRule, KlRule, MovingAverageRule, IsotoneRule, DynamicRule)})
"""Range rules by name. A rule's parameters are the fields of its dataclass."""


def parse_rule(text: str) -> RangeRule:
    """The range rule a text names: `minmax`, `percentile(99.9)`, `kl(nvidia)`. Inverse of `str(rule)`.

    Parameters left out have their defaults. Raises EncodingError, quoting the text.
    """
    match = _TEXT.fullmatch(text)
    if match is None or match[1] not in RANGE_RULES:
        raise EncodingError(f"no range rule is called {text!r}: choose one of {', '.join(RANGE_RULES)}, "
                            "with parameters as in percentile(99.99)")
    rule = RANGE_RULES[match[1]]
    words = [word.strip() for word in (match[2] or "").split(",")] if (match[2] or "").strip() else []
    wanted = fields(rule)  # type: ignore[arg-type]
    if len(words) > len(wanted):
        takes = ", ".join(field.name for field in wanted) or "none"
        raise EncodingError(f"range rule {text!r} has {len(words)} parameters, but {rule.name} takes {takes}")
    try:
        values = [float(word) if field.type is float else word for field, word in zip(wanted, words, strict=False)]
    except ValueError:
        raise EncodingError(f"range rule {text!r}: its parameter must be a number") from None
    return rule(*values)

"""Rounding to integers: every rule of the package, by name.

| rule          | a tie goes            | −2.5 | −1.5 | 0.5 | 1.5 | 2.5 | used by                                     |
|---------------|-----------------------|------|------|-----|-----|-----|---------------------------------------------|
| `half_even`   | to the even neighbour | −2   | −2   | 0   | 2   | 2   | IEEE 754, torch, ONNX; ours where unnamed   |
| `half_away`   | away from zero        | −3   | −2   | 1   | 2   | 3   | C `round`, Ristretto's code, gemmlowp       |
| `half_up`     | up                    | −2   | −1   | 1   | 2   | 3   | floor(x + ½)                                |
| `half_down`   | down                  | −3   | −2   | 0   | 1   | 2   | Ristretto's page, as its formula must read  |
| `floor`       | (all numbers go) down | −3   | −2   | 0   | 1   | 2   | arithmetic shift right                      |
| `ceil`        | up                    | −2   | −1   | 1   | 2   | 3   |                                             |
| `toward_zero` | toward zero           | −2   | −1   | 0   | 1   | 2   | a C cast to int                             |
| `stochastic`  | by chance             |      |      |     |     |     | training in few bits; E[stochastic(x)] = x  |

Ristretto's page prints round(x) = ⌊x⌋ if ⌊x⌋ ≤ x ≤ x + ε/2, and ⌊x⌋ + ε if ⌊x⌋ + ε/2 < x ≤ x + ε, where ⌊x⌋
is the largest multiple of ε not above x. As printed the first line always holds, so every number would be
rounded down; mended, its limits are ⌊x⌋ + ε/2 and ⌊x⌋ + ε, which is `to_step(x, ε, half_down)`. Ristretto's
code does `to_step(x, ε, half_away)`. Its stochastic rounding is right as printed: `to_step` with `stochastic`.
"""

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch

from fewbits.errors import EncodingError

Array = TypeVar("Array", np.ndarray, torch.Tensor)
Rounding = Callable[[Any], Any]
"""A rule: floats of any shape (NumPy or torch) to whole numbers of the same type; NaN and infinities pass."""


def half_even(x: Array) -> Array:
    """Nearest integer, ties to the even one (IEEE 754 roundTiesToEven): 0.5 → 0, 1.5 → 2, -2.5 → -2.

    x: any shape, float; the result keeps its type. NaN and infinities pass through.
    """
    return torch.round(x) if isinstance(x, torch.Tensor) else np.rint(x)


def half_away(x: Array) -> Array:
    """Nearest integer, ties away from zero (C `round`): 0.5 → 1, -2.5 → -3."""
    whole = toward_zero(x)
    return _library(x).where(abs(_rest(x, whole)) >= 0.5, whole + _library(x).sign(x), whole)


def half_up(x: Array) -> Array:
    """Nearest integer, ties up: 0.5 → 1, -2.5 → -2. Not floor(x + ½), whose sum rounds: 0.5 − 2⁻²⁵ → 0 here."""
    whole = floor(x)
    return _library(x).where(_rest(x, whole) >= 0.5, whole + 1, whole)


def half_down(x: Array) -> Array:
    """Nearest integer, ties down: 0.5 → 0, -2.5 → -3."""
    return -half_up(-x)


def floor(x: Array) -> Array:
    """Largest integer not above x."""
    return _library(x).floor(x)


def ceil(x: Array) -> Array:
    """Smallest integer not below x."""
    return _library(x).ceil(x)


def toward_zero(x: Array) -> Array:
    """The integer part: 1.9 → 1, -1.9 → -1."""
    return _library(x).trunc(x)


def stochastic(x: Array, generator: np.random.Generator | torch.Generator) -> Array:
    """⌊x⌋ + 1 with probability x − ⌊x⌋, else ⌊x⌋: right on average, whole numbers stay as they are.

    generator: of the library that x belongs to; the same state gives the same result. The draws are
    multiples of 2⁻⁵³ (float32 tensors: 2⁻²⁴). As a rule for an encoding: `partial(stochastic, generator=g)`.
    """
    whole: Any = floor(x)
    if isinstance(x, torch.Tensor):
        draw = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)  # type: ignore[arg-type]
        return by_chance(x, whole, whole + 1, draw)
    assert isinstance(generator, np.random.Generator)
    return by_chance(x, whole, whole + 1, generator.random(x.shape)).astype(x.dtype)


def by_chance(x: Array, low: Array, high: Array, draw: Array) -> Array:
    """high with the probability of how far x lies on the way to it from low, else low: x on average.

    All of one shape; low ≤ x ≤ high; draw: uniform in [0, 1). Where low and high are one number, that.
    """
    with np.errstate(invalid="ignore"):
        share = (x - low) / (high - low)
    return _library(x).where(draw < share, high, low)


def stochastic_from(seed: int) -> Rounding:
    """Stochastic rounding of NumPy arrays with a generator of its own, started at `seed`."""
    return partial(stochastic, generator=np.random.default_rng(seed))


def to_step(x: Array, step: float, rounding: Rounding) -> Array:
    """x rounded to a multiple of `step` by a rule: rounding(x / step) · step."""
    return rounding(x / step) * step


RULES = MappingProxyType({rule.__name__: rule for rule in (
    half_even, half_away, half_up, half_down, floor, ceil, toward_zero)})
"""The rules that need no generator, by name."""


def rule_of(name: str) -> Rounding:
    """The rule of a name. Raises EncodingError for a name that is none."""
    if name not in RULES:
        raise EncodingError(f"no rounding is called {name!r}: choose one of {', '.join(RULES)}")
    return RULES[name]


def divide(numerator: Any, denominator: Any, rounding: Rounding) -> np.ndarray:
    """numerator / denominator, rounded exactly: integer arrays of any type, Python's own integers, objects of these.

    Returns int64, or an object array where either does not fit it. No float is involved but the fraction, which is
    only compared with ½ and 1: a rule sees the sign of the quotient, whether its whole part is odd, and -1, 0 or 1 for
    below, at or above one half.
    """
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    numerator, denominator = _with_room(numerator), _with_room(denominator)
    quotient = numerator // denominator
    rest = numerator - quotient * denominator  # sign of the denominator, or 0
    whole, half = (rest == 0), np.sign(abs(rest) - (abs(denominator) - abs(rest)))
    fraction = np.where(whole, 0.0, 0.5 + 0.25 * half.astype(np.float64))
    parity = (quotient % 2).astype(np.float64)
    # -2 + parity or 0 + parity: a small stand-in with the sign, the parity and the fraction of the quotient
    stand_in = np.where(quotient < 0, -2.0, 0.0) + parity
    return (quotient + (rounding(stand_in + fraction) - stand_in).astype(np.int64)).reshape(shape)


def _with_room(numbers: Any) -> np.ndarray:
    """Integers as an array of one axis at least, whose sums and negatives cannot overflow: int64 within ±2^62, else
    Python's own. NumPy by itself makes uint64 of a Python integer from 2^63 on, and the object of an object array
    without axes."""
    array = np.atleast_1d(np.asarray(numbers, object) if isinstance(numbers, int) else numbers)
    small = array.dtype != object or isinstance(numbers, int)
    if small and array.size:
        small = int(array.min()) > -(2**62) and int(array.max()) < 2**62
    return array.astype(np.int64 if small else object)


def _rest(x: Array, whole: Array) -> Array:
    """x − whole, NaN without a warning for infinities: no rule then adds 1."""
    with np.errstate(invalid="ignore"):
        return x - whole


def _library(x: Any) -> Any:
    return torch if isinstance(x, torch.Tensor) else np

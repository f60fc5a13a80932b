"""The factors by which sums become codes, in the form the profile rescales with (docs/numerics.md, eq. 5, 8, 10, 17).

float32 factors are multiplied in float32; those of integer profiles are a multiplier and a shift.
"""

from typing import Literal

import numpy as np

from fewbits.numerics.encoding import Encoding
from fewbits.options import options_checked
from fewbits.program import requantize as constants
from fewbits.program.fixed_point import Fixed, fixed
from fewbits.program.profile import Profile

Factor = np.ndarray | Fixed

Role = Literal["linear", "products", "other"]
"""Whose integers are rounded: a fully connected layer's, those of other sums of products, or any other node's."""


def dot(profile: Profile, x: Encoding, weight: Encoding, y: Encoding) -> Factor:
    """x_scale · weight_scale / y_scale: [] or [O]."""
    if profile.rescaling == "float":
        return constants.dot_multiplier(x, weight, y)
    scales = weight.scale.reshape(-1) if weight.scale.ndim else weight.scale
    return fixed(np.float64(x.scale) * scales.astype(np.float64) / np.float64(y.scale))


def product(profile: Profile, a: Encoding, b: Encoding, y: Encoding) -> Factor:
    """a_scale · b_scale / y_scale, in float32 for both forms."""
    factor = constants.product_multiplier(a, b, y)
    return factor if profile.rescaling == "float" else fixed(factor)


def matrix_product(profile: Profile, a: Encoding, b: Encoding, y: Encoding) -> Factor:
    """a_scale · b_scale / y_scale; for integers the product in float32 and the quotient in float64."""
    if profile.rescaling == "float":
        return constants.product_multiplier(a, b, y)
    return fixed(np.multiply(a.scale, b.scale, dtype=np.float32).astype(np.float64) / np.float64(y.scale))


def mean(profile: Profile, x: Encoding, y: Encoding, count: int) -> Factor:
    """x_scale / (y_scale · count)."""
    return constants.mean_multiplier(x, y, count) if profile.rescaling == "float" else regrid(x, y).over(count)


def regrid(x: Encoding, y: Encoding) -> Fixed:
    """x_scale / y_scale, for integer profiles."""
    return fixed(np.float64(x.scale) / np.float64(y.scale))


@options_checked
def rounding(profile: Profile, role: Role) -> str:
    """Which of `fixed_point.ROUNDINGS` brings the integers of a node to codes."""
    if role == "linear" and profile.linear:
        return profile.linear
    return "double" if profile.rescaling == "wide" and role == "other" else profile.rescaling


def addition(profile: Profile, a: Encoding, b: Encoding, y: Encoding) -> tuple[int, Fixed, Fixed, Fixed]:
    """(bits by which codes are raised, factors of both onto the common grid, factor from it) (eq. 21)."""
    raised = 15 if profile.activation_bits > 8 else 20
    twice = 2 * np.maximum(np.float64(a.scale), np.float64(b.scale))
    onto = fixed(np.float64(a.scale) / twice), fixed(np.float64(b.scale) / twice)
    return raised, *onto, fixed(twice / (2.0**raised * np.float64(y.scale)))

"""Profiles: the arithmetic of a target, as data."""

from dataclasses import dataclass
from typing import Literal

from fewbits.errors import LoweringError
from fewbits.numerics.formats import ACCUMULATOR, Int


@dataclass(frozen=True)
class Profile:
    """Whose integers a program computes. Everything that may differ between targets stands here.

    activation_bits: widest unsigned activation code; weight_low, weight_high: allowed weight codes;
    accumulator, bias: formats of the dot products and of what is added to them;
    addition: how two activations are added (docs/numerics.md, eq. 7): `float` rounds every step to
    float32, `fma` keeps the products exact, as AVX2 and later do;
    relies_on: what the equality with the engine rests on, in words for the ledger.
    """

    name: str
    activation_bits: int
    weight_low: int
    weight_high: int
    addition: Literal["fma", "float"]
    relies_on: tuple[str, ...]
    accumulator: Int = ACCUMULATOR
    bias: Int = ACCUMULATOR


ONNXRUNTIME = Profile(
    name="onnxruntime", activation_bits=8, weight_low=-128, weight_high=127, addition="fma",
    relies_on=("x86-64 with AVX2 and FMA, for residual additions",
               "VNNI, where a weight code lies beyond ±64 (pairs of products saturate at 16 bits without it)"),
)
PORTABLE = Profile(
    name="onnxruntime-portable", activation_bits=8, weight_low=-64, weight_high=64, addition="float",
    relies_on=(),
)

PROFILES = {profile.name: profile for profile in (ONNXRUNTIME, PORTABLE)}


def profile(name: str) -> Profile:
    """The profile of that name. Raises LoweringError when there is none."""
    if name not in PROFILES:
        raise LoweringError(f"no profile is called {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]

"""Profiles: the arithmetic of a target, as data."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from fewbits.errors import LoweringError
from fewbits.numerics.formats import ACCUMULATOR, Int
from fewbits.options import options_checked

Rescaling = Literal["float", "double", "single", "wide"]


@options_checked
@dataclass(frozen=True)
class Profile:
    """Whose integers a program computes. Everything that may differ between targets stands here; the equations
    are those of docs/numerics.md.

    activation_bits, signed, symmetric: widest activation code, whether codes have a sign, whether their zero point
    must be 0; inner_bits: widest code, always with a sign, of values that no dot product reads (Record.wide), 0 where
    there are none wider than others; weight_low, weight_high: allowed weight codes; weight_zero_points: whether weights
    may have zero points other than 0, one per `tensor` or in `any` number;
    accumulator, bias: formats of the dot products and of what is added to them;
    sum_bits: width in which a node adds (eq. 9); split: whether products that do not fit it are added in parts that
    do, and the parts in the accumulator (eq. 23);
    entering: which way ties of float inputs go (eq. 1);
    rescaling: how sums become codes: `float` (eq. 6), or by an integer multiplier and a shift with `double` rounding
    (eq. 18) or `single` rounding (eq. 19); `wide`: convolutions and matrix products by eq. 20, all else `double`;
    linear: the same for fully connected layers, where they differ;
    addition: how two activations are added: `float` rounds every step to float32, `fma` keeps the products exact, as
    AVX2 and later do (eq. 7), `integer` brings both to a finer common grid (eq. 21);
    recipe: a preset whose codes it takes; engine: which engine here computes it, '' for none;
    lacks: what it has no definition of, by the names of limits.py;
    relies_on: what the equality with the engine rests on, in words for the ledger.
    """

    name: str
    activation_bits: int
    weight_low: int
    weight_high: int
    addition: Literal["fma", "float", "integer"]
    relies_on: tuple[str, ...]
    accumulator: Int = ACCUMULATOR
    bias: Int = ACCUMULATOR
    signed: bool = False
    symmetric: bool = False
    inner_bits: int = 0
    weight_zero_points: Literal["none", "tensor", "any"] = "none"
    sum_bits: int = 32
    split: bool = False
    entering: Literal["half_even", "half_away"] = "half_even"
    rescaling: Rescaling = "float"
    linear: Literal["", "double", "single"] = ""
    recipe: str = "w8a8"
    engine: Literal["onnxruntime", ""] = "onnxruntime"
    lacks: tuple[str, ...] = ()

    @property
    def activations(self) -> str:
        """The activation codes it takes, in words."""
        kind = "symmetric signed" if self.symmetric else "signed" if self.signed else "unsigned"
        return f"{kind} ones of at most {self.activation_bits} bits"


_NO_ENGINE = ("no engine on this machine: the reference and the torch executor were compared, nothing else",)

ONNXRUNTIME = Profile(
    name="onnxruntime", activation_bits=8, weight_low=-128, weight_high=127, addition="fma",
    weight_zero_points="any", inner_bits=12,
    relies_on=("x86-64 with AVX2 and FMA, for sums of two tensors that are not written as tables",
               "VNNI, where pairs of products leave 16 bits and weights are written as int8"),
)
PORTABLE = Profile(
    name="onnxruntime-portable", activation_bits=8, weight_low=-64, weight_high=64, addition="float",
    weight_zero_points="any", inner_bits=12, relies_on=(), recipe="w7a8",
)
TENSORRT = Profile(
    name="tensorrt", activation_bits=8, signed=True, symmetric=True, weight_low=-128, weight_high=127,
    addition="float", recipe="w8a8-symmetric", relies_on=(),
)
GEMMLOWP = Profile(
    name="gemmlowp", activation_bits=8, signed=True, weight_low=-127, weight_high=127, addition="integer",
    weight_zero_points="tensor", entering="half_away", rescaling="double", recipe="w8a8-signed", engine="",
    relies_on=_NO_ENGINE,
    lacks=("softmax", "log softmax", "layer norm", "quotient of two activations", "average with a divisor of its own"),
)
LITERT = replace(GEMMLOWP, name="litert", linear="single", weight_zero_points="none")
LITERT_SINGLE = replace(LITERT, name="litert-single-rounding", rescaling="single")
LITERT_INT16 = replace(
    LITERT, name="litert-int16", activation_bits=16, symmetric=True, rescaling="wide", sum_bits=48,
    recipe="w8a16", lacks=(*LITERT.lacks, "function of one number"),
)
CMSIS_NN = replace(
    GEMMLOWP, name="cmsis-nn", weight_zero_points="none",
    lacks=(*GEMMLOWP.lacks, "convolution over three axes", "broadcast sum or product", "difference",
           "mean over anything but the image", "product of two activation matrices"),
)

PROFILES = {profile.name: profile for profile in (ONNXRUNTIME, PORTABLE, TENSORRT, GEMMLOWP, LITERT,
                                                  LITERT_SINGLE, LITERT_INT16, CMSIS_NN)}

_NARROW = re.compile(r"(.+)/sums([0-9]{1,6})(-split)?")


def profile(name: str) -> Profile:
    """The profile of that name; `<name>/sums16` is the same with sums of 16 bits, and `<name>/sums16-split` adds
    products that do not fit in parts that do. Raises LoweringError when there is none.
    """
    narrow = _NARROW.fullmatch(name)
    base, width, split = narrow.groups() if narrow else (name, None, None)
    if base not in PROFILES:
        raise LoweringError(f"no profile is called {base!r}: choose one of {', '.join(PROFILES)}; "
                            "/sums16 or /sums24 behind it, and -split, narrow its accumulator")
    if width is None:
        return PROFILES[base]
    if not 8 < int(width) < 32:
        raise LoweringError(f"profile {name!r} would add in {width} bits: choose 9 to 31, such as {base}/sums16")
    return replace(PROFILES[base], name=name, sum_bits=int(width), split=split is not None)

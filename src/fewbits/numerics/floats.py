"""Minifloats: any split of exponent and mantissa, with the special values that hardware has.

A code is the bit pattern sign | exponent field | mantissa field, an unsigned integer.

| specials | the codes that are no number                                   | flavour                            |
|----------|----------------------------------------------------------------|------------------------------------|
| `ieee`   | highest exponent field: infinities, and NaN for the rest       | fp16, bf16, OCP E5M2, "IEEE E4M3"  |
| `fn`     | all bits but the sign set: NaN; no infinity                    | OCP E4M3, E8M0                     |
| `fnuz`   | the pattern of -0: NaN; no infinity, no -0; bias one higher    | AMD and Graphcore E4M3, E5M2       |
| `finite` | none                                                           | OCP E2M1, E3M2, E2M3; Ristretto    |

| underflow   | exponent field 0 holds                                                                     |
|-------------|--------------------------------------------------------------------------------------------|
| `gradual`   | subnormals, as IEEE 754 says; the two zeros are -0.0 and 0.0                                |
| `flush`     | zero only, whatever the mantissa field                                                      |
| `zero`      | a binade like the others, but for the zeros at mantissa 0 (Ristretto)                       |
| `none`      | a binade like the others: no zero at all (E8M0)                                             |

Encoding is to the nearest number, ties to the even mantissa (IEEE 754 §4.3.1: without mantissa bits, to the
larger magnitude). A number that rounds past the largest overflows: it `saturates` to the largest, or it
becomes an infinity, or NaN where there is none. An infinity stays one where the format has it, so that every
code comes back (OCP's saturating conversion would make it the largest), and overflows where it has not. NaN
stays NaN, and where a format has none it becomes the lowest number.

Sources: IEEE 754-2019; OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats 1.0;
Noune et al. 2022, arXiv:2206.02915 (fnuz).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.rounding import Array, Rounding, half_even
from fewbits.options import options_checked

Specials = Literal["ieee", "fn", "fnuz", "finite"]
Underflow = Literal["gradual", "flush", "zero", "none"]

_F64_MANTISSA = 52
_F64_BIAS = 1023


@options_checked
@dataclass(frozen=True)
class Float:
    """Numbers ±(1 + mantissa/2^M)·2^(field − bias), with what the tables above say at both ends.

    bias: 2^(E-1) - 1 when None (2^(E-1) for fnuz). signed: a sign bit. saturates: what overflow does; the
    usual choice when None: saturate in 8 bits and fewer. No exponent bits: sign and magnitude, fixed point.
    Raises EncodingError for what cannot be, or does not fit float32: every number must be a float32.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int | None = None
    signed: bool = True
    specials: Specials = "ieee"
    underflow: Underflow = "gradual"
    saturates: bool | None = None

    def __post_init__(self):
        e, m = self.exponent_bits, self.mantissa_bits
        if not (0 <= e <= 8 and 0 <= m <= 23 and e + m >= 1):
            raise EncodingError(f"a float has 0 to 8 exponent and 0 to 23 mantissa bits, not {e} and {m}")
        if e == 0 and (self.specials != "finite" or self.underflow != "gradual"):
            raise EncodingError("a float without exponent bits is finite and of gradual underflow")
        if self.specials == "ieee" and (m == 0 or e < 2):
            raise EncodingError(f"e{e}m{m} has no room for infinity, NaN and numbers: use another flavour")
        if self.specials == "fnuz" and not self.signed:
            raise EncodingError("the fnuz flavour puts NaN where -0 is: it is signed")
        if self.bias is None:
            object.__setattr__(self, "bias", 2 ** max(e - 1, 0) - (self.specials != "fnuz"))
        if self.saturates is None:
            object.__setattr__(self, "saturates", self.bits <= 8 or self.specials == "finite")
        elif self.specials == "finite" and not self.saturates:
            raise EncodingError("a finite float has nothing but its largest number to overflow to: it saturates")
        smallest, largest = self.smallest, self.largest
        if smallest < 2.0**-149 or largest > float(np.finfo(np.float32).max) or largest < smallest:
            raise EncodingError(f"e{e}m{m} with bias {self.bias} reaches from {smallest:.3g} to {largest:.3g}: "
                                "every number must be a float32")

    @property
    def bits(self) -> int:
        """Sign, exponent and mantissa bits together."""
        return self.signed + self.exponent_bits + self.mantissa_bits

    @property
    def low(self) -> int:
        """Lowest code, 0."""
        return 0

    @property
    def high(self) -> int:
        """Highest code; the lowest and the highest are bit patterns, not the smallest and largest number."""
        return 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype:
        """The smallest NumPy integer that holds every code."""
        return np.dtype(f"uint{next(w for w in (8, 16, 32) if self.bits <= w)}")

    @property
    def lowest_exponent(self) -> int:
        """Exponent of the lowest binade of full precision."""
        return (1 if self.underflow in ("gradual", "flush") else 0) - self._bias

    @property
    def highest_exponent(self) -> int:
        """Exponent of the binade of the largest number."""
        return max((self.largest_code >> self.mantissa_bits) - self._bias, self.lowest_exponent)

    @property
    def largest_code(self) -> int:
        """The code of the largest number."""
        top = 2 ** (self.exponent_bits + self.mantissa_bits) - 1
        return {"ieee": top - 2**self.mantissa_bits, "fn": top - 1}.get(self.specials, top)

    @property
    def infinity_code(self) -> int | None:
        """The code of +infinity; None where there is none."""
        return self.largest_code + 1 if self.specials == "ieee" else None

    @property
    def nan_code(self) -> int | None:
        """The code that every NaN is encoded to; None where there is none."""
        magnitude_bits = self.exponent_bits + self.mantissa_bits
        return {"ieee": self.largest_code + 1 + 2 ** max(self.mantissa_bits - 1, 0),
                "fn": 2**magnitude_bits - 1, "fnuz": 2**magnitude_bits}.get(self.specials)

    @property
    def largest(self) -> float:
        """The largest number."""
        return float(_magnitudes(self, np.array([self.largest_code]))[0])

    @property
    def smallest(self) -> float:
        """The smallest number above 0."""
        first = {"flush": 2**self.mantissa_bits, "none": 0}.get(self.underflow, 1)
        return float(_magnitudes(self, np.array([first]))[0])

    @property
    def smallest_normal(self) -> float:
        """The smallest number of full precision, but where it is 0's code (underflow `zero`) the next one."""
        return self.smallest if self.exponent_bits == 0 or self.underflow == "zero" else 2.0**self.lowest_exponent

    @property
    def lowest(self) -> float:
        """The lowest number: -largest, or the smallest of an unsigned format."""
        return -self.largest if self.signed else (self.smallest if self.underflow == "none" else 0.0)

    @property
    def _bias(self) -> int:
        assert self.bias is not None  # set on creation
        return self.bias

    def values(self) -> np.ndarray:
        """All finite numbers of the format, ascending and each once (-0 is 0): float64.

        Raises EncodingError above 24 bits: nobody wants them listed.
        """
        if self.bits > 24:
            raise EncodingError(f"{self} has too many numbers to list")
        numbers = decode_by_formula(self, np.arange(2**self.bits, dtype=np.int64))
        return np.unique(numbers[np.isfinite(numbers)] + 0.0)

    def canonical(self, codes: np.ndarray) -> np.ndarray:
        """The code that each code's number is encoded to: one NaN, one zero of each sign."""
        return encode_by_formula(self, self.decode(codes).astype(np.float64), half_even)

    def encode(self, numbers: np.ndarray, rounding: Rounding = half_even) -> np.ndarray:
        """Codes of float32 or float64 `numbers` in units of the scale, by the rules above; any shape."""
        if rounding is not half_even:
            return encode_by_formula(self, numbers.astype(np.float64), rounding)
        codes = np.empty(numbers.shape, self.dtype)
        self.encode_into(codes, np.array(numbers, order="C"))  # a copy: torch takes no read-only memory
        return codes

    def encode_into(self, codes: np.ndarray, numbers: np.ndarray) -> None:
        """Half-even codes written to `codes`; numbers: float32 or float64, contiguous."""
        cast = _TORCH_CASTS.get(_shape_of(self))
        if numbers.dtype == np.float32 and cast is not None:
            _cast_into(self, codes, numbers, cast)
        else:
            codes[...] = encode_by_formula(self, numbers.astype(np.float64), half_even)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The numbers that codes stand for, float32; any shape."""
        if self.bits <= 16:
            return _numbers(self)[codes]
        return decode_by_formula(self, codes.astype(np.int64)).astype(np.float32)

    def nearest(self, numbers: Array, rounding: Rounding = half_even) -> Array:
        """The numbers of the format that NumPy or torch `numbers` are rounded to; float type and shape kept."""
        if isinstance(numbers, torch.Tensor):
            return _rounded(self, numbers.double(), rounding).to(numbers.dtype)
        return _rounded(self, numbers.astype(np.float64), rounding).astype(numbers.dtype)

    def __str__(self) -> str:
        return _names().get(self) or _systematic_name(self)


def parse_float(text: str) -> Float | None:
    """The float a text names, None when it names none: `bf16`, `sm8`, or `[u]eEmM` and what is unusual of it.

    Unusual is said in this order: specials (`ieee`, `fn`, `fnuz`, `finite`), bias (`b3`, `b-3`), underflow
    (`flush`, `zero`, `none`), overflow (`sat`, `nosat`). The usual specials are fn for e4m3 and without
    mantissa, finite in 5 bits and fewer beside the sign, else ieee.
    """
    if text in NAMED_FLOATS:
        return NAMED_FLOATS[text]
    if match := _SIGN_MAGNITUDE.fullmatch(text):
        return sign_magnitude(int(match[1]))
    match = _FLOAT_TEXT.fullmatch(text)
    if match is None:
        return None
    unsigned, e, m, specials, bias, underflow, overflow = match.groups()
    return Float(int(e), int(m), None if bias is None else int(bias), not unsigned,
                 specials or _usual_specials(int(e), int(m)), underflow or "gradual",  # type: ignore[arg-type]
                 None if overflow is None else overflow == "sat")


def sign_magnitude(bits: int) -> Float:
    """Sign-magnitude integers of 2 to 16 bits, which have two zeros: floats without an exponent."""
    if not 2 <= bits <= 16:
        raise EncodingError(f"sign-magnitude integers have 2 to 16 bits, not {bits}")
    return Float(0, bits - 1, bias=2 - bits, specials="finite")


_FLOAT_TEXT = re.compile(r"(u?)e([0-9]{1,3})m([0-9]{1,3})(?:-(ieee|fn|fnuz|finite))?(?:-b(-?[0-9]{1,6}))?"
                         r"(?:-(flush|zero|none))?(?:-(sat|nosat))?")
_SIGN_MAGNITUDE = re.compile(r"sm([0-9]{1,3})")


def _usual_specials(exponent_bits: int, mantissa_bits: int) -> Specials:
    if exponent_bits == 0 or (exponent_bits + mantissa_bits <= 5 and mantissa_bits > 0):
        return "finite"
    return "fn" if mantissa_bits == 0 or (exponent_bits, mantissa_bits) == (4, 3) else "ieee"


def _systematic_name(format: Float) -> str:
    e, m = format.exponent_bits, format.mantissa_bits
    if 2 <= format.bits <= 16 and format == sign_magnitude(format.bits):
        return f"sm{format.bits}"
    usual = Float(e, m, None, format.signed, format.specials, format.underflow)
    return "".join((
        f"{'' if format.signed else 'u'}e{e}m{m}",
        f"-{format.specials}" if format.specials != _usual_specials(e, m) else "",
        f"-b{format.bias}" if format.bias != usual.bias else "",
        f"-{format.underflow}" if format.underflow != "gradual" else "",
        f"-{'sat' if format.saturates else 'nosat'}" if format.saturates != usual.saturates else ""))


def decode_by_formula(format: Float, codes: np.ndarray) -> np.ndarray:
    """Numbers by the definition of a Float: float64; codes: int64. Every NaN is the same."""
    sign_at = format.exponent_bits + format.mantissa_bits
    magnitude = codes & (2**sign_at - 1)
    numbers = _magnitudes(format, magnitude)
    if format.specials == "ieee":
        numbers = np.where(magnitude > format.largest_code, np.nan, numbers)
        numbers = np.where(magnitude == format.infinity_code, np.inf, numbers)
    if format.specials == "fn":
        numbers = np.where(magnitude > format.largest_code, np.nan, numbers)
    if format.signed:
        numbers = np.where((codes >> sign_at) & 1 == 1, -numbers, numbers)
    return np.where(codes == format.nan_code, np.nan, numbers)


def encode_by_formula(format: Float, numbers: np.ndarray, rounding: Rounding) -> np.ndarray:
    """Codes by the definition of a Float, by whole-number arithmetic; numbers: float64."""
    m, lowest = format.mantissa_bits, format.lowest_exponent
    numbers = _rounded(format, numbers, rounding)
    magnitude = abs(numbers)
    first_field = 1 if format.underflow in ("gradual", "flush") else 0
    code = (_bits(magnitude) >> (_F64_MANTISSA - m)) + ((first_field - lowest - _F64_BIAS) << m)
    with np.errstate(invalid="ignore"):
        subnormal = np.nan_to_num(magnitude * 2.0 ** (m - lowest), posinf=0.0).astype(np.int64)
    code = np.where(magnitude < 2.0**lowest, subnormal, code)
    if format.infinity_code is not None:
        code = np.where(np.isinf(numbers), format.infinity_code, code)
    code = code | (np.signbit(numbers).astype(np.int64) << (format.bits - 1))
    if format.nan_code is not None:
        code = np.where(np.isnan(numbers), format.nan_code, code)
    return code.astype(format.dtype)


def _magnitudes(format: Float, magnitude: np.ndarray) -> np.ndarray:
    """Magnitudes of codes, none taken as special: float64; magnitude: int64, the code without its sign bit."""
    m = format.mantissa_bits
    field, mantissa = magnitude >> m, (magnitude & (2**m - 1)).astype(np.float64)
    numbers = np.ldexp(1 + mantissa / 2**m, field - format._bias)
    if format.underflow == "gradual":
        return np.where(field == 0, np.ldexp(mantissa, format.lowest_exponent - m), numbers)
    if format.underflow == "flush":
        return np.where(field == 0, 0.0, numbers)
    return np.where(magnitude == 0, 0.0, numbers) if format.underflow == "zero" else numbers


def _rounded(format: Float, x: Array, rounding: Rounding) -> Array:
    """The number of the format, infinity or NaN that each float64 of x becomes.

    In a binade [2^e, 2^(e+1)) the numbers are multiples of 2^(e-M), below the lowest binade of its step:
    x/step is exact, so the rule sees what it should.
    """
    library: Any = torch if isinstance(x, torch.Tensor) else np
    m, lowest, largest = format.mantissa_bits, format.lowest_exponent, format.largest
    with np.errstate(invalid="ignore", over="ignore"):
        exponent = (_bits(x) & (0x7FF << _F64_MANTISSA)).clip(
            (lowest + _F64_BIAS) << _F64_MANTISSA, (format.highest_exponent + _F64_BIAS) << _F64_MANTISSA)
        step = (exponent - (m << _F64_MANTISSA)).view(x.dtype)
        rounded = rounding(x / step) * step
        if format.underflow == "flush" or format.underflow == "zero":
            tiny = abs(x) < format.smallest
            rounded = library.where(tiny, rounding(x / format.smallest) * format.smallest, rounded)
        if format.saturates:
            infinite = library.isinf(x) & (format.infinity_code is not None)
            rounded = library.where(infinite, rounded, rounded.clip(format.lowest, largest))
        else:
            beyond = library.copysign(library.full_like(x, np.inf), x) if format.specials == "ieee" else np.nan
            rounded = library.where(abs(rounded) > largest, beyond, rounded)
            rounded = rounded if format.signed else library.where(rounded < 0, format.lowest, rounded)
    if format.underflow == "none":
        small = abs(rounded) < format.smallest
        floor = library.full_like(x, format.smallest)
        rounded = library.where(small, library.copysign(floor, x) if format.signed else floor, rounded)
    if format.specials == "fnuz" or not format.signed:
        rounded = rounded + 0.0  # no -0
    if format.nan_code is None:
        rounded = library.where(library.isnan(x), format.lowest, rounded)
    return rounded


def _bits(x: Any) -> Any:
    return x.view(torch.int64 if isinstance(x, torch.Tensor) else np.int64)


@lru_cache(maxsize=64)
def _numbers(format: Float) -> np.ndarray:
    """The number of each code, float32 [2^bits]; cached."""
    numbers = decode_by_formula(format, np.arange(2**format.bits, dtype=np.int64)).astype(np.float32)
    numbers.flags.writeable = False
    return numbers


def _shape_of(format: Float) -> tuple:
    """The parameters that determine the codes of numbers in range."""
    return (format.exponent_bits, format.mantissa_bits, format.bias, format.signed, format.specials,
            format.underflow)


_TORCH_CASTS = {_shape_of(format): dtype for format, dtype in (
    (Float(8, 7), torch.bfloat16), (Float(5, 10), torch.float16), (Float(5, 2), torch.float8_e5m2),
    (Float(4, 3, specials="fn"), torch.float8_e4m3fn), (Float(4, 3, specials="fnuz"), torch.float8_e4m3fnuz),
    (Float(5, 2, specials="fnuz"), torch.float8_e5m2fnuz))}
"""Formats that torch casts float32 to, several times faster than the formula, with the same codes in range."""


def _cast_into(format: Float, codes: np.ndarray, numbers: np.ndarray, cast: torch.dtype) -> None:
    """Codes by torch's cast; those of the largest number and beyond, and of NaN, again by the formula, for
    there torch's answers are its own."""
    flat = numbers.reshape(-1)
    own = codes.reshape(-1) if codes.flags.c_contiguous else np.empty(codes.size, codes.dtype)
    torch.from_numpy(own).view(cast).copy_(torch.from_numpy(flat))
    beyond = (own & (2 ** (format.bits - 1) - 1)) >= format.largest_code
    if format.specials == "fnuz":
        beyond |= own == format.nan_code
    if beyond.any():
        own[beyond] = encode_by_formula(format, flat[beyond].astype(np.float64), half_even)
    if not codes.flags.c_contiguous:
        codes[...] = own.reshape(codes.shape)


NAMED_FLOATS: Mapping[str, Float] = MappingProxyType({
    "fp32": Float(8, 23), "tf32": Float(8, 10), "bf16": Float(8, 7), "fp16": Float(5, 10),
    "e8m0": Float(8, 0, signed=False, specials="fn", underflow="none")})
"""Floats that have a name of their own."""


@lru_cache(maxsize=1)
def _names() -> dict[Float, str]:
    return {format: name for name, format in NAMED_FLOATS.items()}

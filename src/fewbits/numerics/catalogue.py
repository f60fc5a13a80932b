"""Every format with a name, one line each: what `fewbits formats` lists and the conformance tests run over.

A new format costs a line here, and a row of figures in tests/numerics/test_catalogue.py.
"""

from dataclasses import dataclass

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Format, parse


@dataclass(frozen=True)
class Entry:
    """A format by the name that `parse` takes, with a short description."""

    name: str
    family: str
    about: str

    @property
    def format(self) -> Format:
        """The format itself."""
        return parse(self.name)


CATALOGUE: tuple[Entry, ...] = tuple(Entry(name, family, about) for family, rows in (
    ("integers", (
        *((f"int{b}", f"two's complement of {b} bit{'s' * (b > 1)}") for b in range(1, 17)),
        *((f"uint{b}", f"unsigned, {b} bit{'s' * (b > 1)}") for b in range(1, 17)),
        *((f"int{b}-narrow", f"two's complement of {b} bits without the lowest code") for b in range(2, 17)),
        *((f"sm{b}", f"sign and magnitude, {b} bits, two zeros") for b in range(2, 17)))),
    ("fixed point", (
        ("q4.4", "8 bits, 4 behind the point; Ristretto's LeNet"),
        ("q8.8", "16 bits, 8 behind the point; Ristretto's CIFAR-10 network"),
        ("q9.7", "16 bits, 7 behind the point; Ristretto's CaffeNet"),
        ("uq0.8", "unsigned fractions of 8 bits"),
        ("q9.-1", "8 bits, the point one place behind the word: even numbers"),
        ("q-2.10", "8 bits, the point two places before the word"))),
    ("floats", (
        ("fp16", "IEEE half precision; overflows to infinity"),
        ("bf16", "bfloat16: the exponent of float32, 8 bits of precision"),
        ("tf32", "TensorFloat-32: the exponent of float32, 11 bits of precision, 19 bits stored"),
        ("e4m3", "OCP E4M3: no infinity, one NaN; saturates"),
        ("e4m3-nosat", "OCP E4M3 whose overflow is NaN"),
        ("e5m2", "OCP E5M2: IEEE's rules in 8 bits; saturates"),
        ("e5m2-nosat", "OCP E5M2 whose overflow is infinity"),
        ("e4m3-fnuz", "E4M3 with bias 8, one zero, one NaN"),
        ("e5m2-fnuz", "E5M2 with bias 16, one zero, one NaN"),
        ("e4m3-ieee", "E4M3 by IEEE's rules: the largest is 240"),
        ("e3m4", "by IEEE's rules in 8 bits"),
        ("e4m3-fnuz-b11", "E4M3 with bias 11, one zero, one NaN"),
        ("e2m3", "OCP FP6 E2M3"),
        ("e3m2", "OCP FP6 E3M2"),
        ("e2m1", "OCP FP4 E2M1, of MX and NVFP4"),
        ("e3m0", "powers of two and 0, in 4 bits"),
        ("e8m0", "OCP E8M0: powers of two, the scales of MX; no zero, no sign"),
        ("e4m3-flush", "OCP E4M3 without subnormals"),
        ("e4m3-finite-zero", "Ristretto's minifloat mended: every exponent a binade, saturating"),
        ("e5m2-finite-zero", "Ristretto's minifloat mended, 5 bits of exponent"))),
    ("tables", (
        *((f"pow2-{b}", f"powers of two of {b} bits, no zero; the exponent is rounded (Ristretto)") for b in (3, 4, 5)),
        *((f"log2-{b}", f"0 and powers of two of {b} bits; the exponent is rounded (LogNet)") for b in (3, 4, 5)),
        *((f"ulog2-{b}", f"0 and powers of two of {b} bits without a sign (LogNet)") for b in (3, 4)),
        *((f"logsqrt2-{b}", f"0 and powers of √2 of {b} bits; the exponent is rounded (LogNet)") for b in (4, 5)),
        *((f"inq-{b}", f"0 and powers of two, to the nearest, of {b} bits (INQ)") for b in (2, 3, 4, 5)),
        *((f"linear-{b}", f"-1 to below 1 in 2^{b} even steps (QNN)") for b in (2, 3, 4)),
        *((f"apot-{b}", f"sums of powers of two, {b} bits with the sign (APoT)") for b in (3, 4, 5, 6, 8)),
        *((f"uapot-{b}", f"sums of powers of two, {b} bits without a sign (APoT)") for b in (4, 8)),
        ("nf4", "quantiles of the normal distribution, 16 of them (QLoRA)"),
        ("ternary", "-1, 0, 1; half way (TWN and TTQ set thresholds and scales)"),
        ("binary", "-1, 1; 0 becomes 1"),
        ("hwgq2", "four levels of half a normal distribution, with their thresholds (HWGQ)"))),
) for name, about in rows)


def entry(name: str) -> Entry:
    """The entry of that name; any other name that `parse` knows gives an entry without words.

    Raises EncodingError when the name is no format at all.
    """
    for each in CATALOGUE:
        if each.name == name:
            return each
    try:
        return Entry(str(parse(name)), "others", "")
    except EncodingError as error:
        raise EncodingError(str(error)) from None

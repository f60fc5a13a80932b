"""The fields of a floating-point number: sign, exponent and fraction, and what they make together."""

from dataclasses import dataclass

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.floats import Float
from fewbits.numerics.formats import parse
from fewbits.options import arguments_checked


@dataclass(frozen=True)
class Fields:
    """The nearest number of a format, taken apart. code: its bit pattern; sign, exponent, fraction: its fields, whole
    numbers from 0; value: the number; normal: whether a 1 stands before the point."""

    format: Float
    code: int
    sign: int
    exponent: int
    fraction: int
    value: float
    normal: bool

    def __str__(self) -> str:
        format, bias = self.format, self.format.bias
        code = f"code {self.code:#0{2 + -(-format.bits // 4)}x}"
        if not format.exponent_bits:
            return f"{self.value:.10g}: sign {self.sign}, magnitude {self.fraction:0{format.mantissa_bits}b}; {code}"
        bits = [f"sign {self.sign}" if format.signed else "no sign",
                f"exponent {self.exponent:0{max(format.exponent_bits, 1)}b} ({self.exponent})"]
        if format.mantissa_bits:
            bits.append(f"fraction {self.fraction:0{format.mantissa_bits}b} ({self.fraction} / 2^"
                        f"{format.mantissa_bits} = {self.fraction / 2**format.mantissa_bits:g})")
        sum_ = f"({int(self.normal)} + {self.fraction / 2**format.mantissa_bits:g})"
        power = f"2^({self.exponent if self.normal else format.lowest_exponent + (bias or 0)} − {bias})"
        made = f" = {'−' if self.sign else ''}{sum_} · {power}" if np.isfinite(self.value) else ""
        return (f"{self.value:.10g}{made}\n{', '.join(bits)}; {code}")


@arguments_checked
def float_fields(name: str | Float, number: float) -> Fields:
    """Sign, exponent and fraction of the number nearest to `number` in a floating-point format, such as `fp32`, `bf16`
    or `e4m3`. Raises EncodingError for a format that is no float. Source: IEEE 754-2019, §3.4.

    >>> print(float_fields("fp32", 0.265625))
    0.265625 = (1 + 0.0625) · 2^(125 − 127)
    sign 0, exponent 01111101 (125), fraction 00010000000000000000000 (524288 / 2^23 = 0.0625); code 0x3e880000
    """
    format = parse(name) if isinstance(name, str) else name
    if not isinstance(format, Float):
        raise EncodingError(f"{name} has no exponent and fraction: name a float, such as fp32, bf16 or e4m3")
    code = int(format.encode(np.array([number], np.float64))[0])
    magnitude = code & (2 ** (format.exponent_bits + format.mantissa_bits) - 1)
    exponent, fraction = magnitude >> format.mantissa_bits, magnitude & (2**format.mantissa_bits - 1)
    value = float(format.decode(np.array([code], format.dtype))[0])
    normal = value != 0 and (exponent > 0 or format.underflow in ("zero", "none"))
    return Fields(format, code, code >> (format.exponent_bits + format.mantissa_bits) if format.signed else 0, exponent,
                  fraction, value, normal)

"""Number formats: finite sets of numbers and the codes that stand for them.

Every format answers `bits`, `low`, `high`, `dtype` (of codes), `signed`, `largest`, `values()`, `canonical(codes)`,
`encode(numbers, rounding)`, `decode(codes)`, `nearest(numbers, rounding)` (NumPy or torch), and `str`.
"""

import re

from fewbits.errors import EncodingError
from fewbits.numerics.floats import Float, parse_float, sign_magnitude
from fewbits.numerics.integers import Int
from fewbits.numerics.levels import named_table
from fewbits.numerics.tables import Levels, parse_table
from fewbits.options import arguments_checked

__all__ = ["ACCUMULATOR", "Float", "Format", "Int", "Levels", "parse", "sign_magnitude"]

Format = Int | Float | Levels

ACCUMULATOR = Int(32)
"""The format of accumulators and of the biases added to them."""

_INT_TEXT = re.compile(r"(u?)int([0-9]{1,9})(-narrow)?")
_FIXED_TEXT = re.compile(r"(u?)q(-?[0-9]{1,9})\.(-?[0-9]{1,9})")


@arguments_checked
def parse(text: str) -> Format:
    """The format a text names; inverse of `str(format)`.

    `int8`, `uint4`, `int8-narrow`; fixed point `q4.4` (integer bits with the sign, bits behind the point);
    sign and magnitude `sm8`; floats `fp16`, `bf16`, `tf32`, `e8m0`, `e4m3`, `e4m3-fnuz` (see parse_float);
    tables `nf4`, `pow2-4`, `ternary` (see levels.py), `table(-1,0,1)`. All that have a name: `fewbits formats`.
    Raises EncodingError when the text names none.
    """
    text = text.strip()
    if match := _INT_TEXT.fullmatch(text):
        unsigned, bits, narrow = match.groups()
        return Int(int(bits), signed=not unsigned, narrow=bool(narrow))
    if match := _FIXED_TEXT.fullmatch(text):
        unsigned, whole, fraction = match.groups()
        return Int(int(whole) + int(fraction), signed=not unsigned, fraction=int(fraction))
    format = parse_float(text) or named_table(text) or parse_table(text)
    if format is None:
        raise EncodingError(f"no format is called {text[:60]!r}: write one such as int8, uint4, q4.4, e4m3, bf16, "
                            "nf4 or ternary; `fewbits formats` lists them")
    return format

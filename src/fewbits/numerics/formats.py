"""Number formats: finite sets of numbers and the codes that stand for them."""

import re
from dataclasses import dataclass

import numpy as np

from fewbits.errors import EncodingError

_INT_TEXT = re.compile(r"(u?)int(\d+)(-narrow)?")


@dataclass(frozen=True)
class Int:
    """Integers of `bits` bits; the value of a code is the code itself.

    signed: two's complement [-2^(b-1), 2^(b-1)-1]; unsigned: [0, 2^b - 1].
    narrow: a signed range without its lowest code, so that it is symmetric: [-(2^(b-1)-1), 2^(b-1)-1].
    Raises EncodingError for widths other than 1 to 16 and 32, for a narrow unsigned format, and for a
    narrow format of one bit (it would hold only 0).
    """

    bits: int
    signed: bool = True
    narrow: bool = False

    def __post_init__(self):
        if not (1 <= self.bits <= 16 or self.bits == 32):
            raise EncodingError(f"integers have 1 to 16 bits, or 32 for accumulators, not {self.bits}")
        if self.narrow and not self.signed:
            raise EncodingError(f"uint{self.bits} cannot be narrow: only signed ranges have a code to drop")
        if self.narrow and self.bits == 1:
            raise EncodingError("int1-narrow would hold only 0: use 2 bits, or the binary format")

    @property
    def low(self) -> int:
        """Lowest code."""
        return -(2 ** (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def high(self) -> int:
        """Highest code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype:
        """The smallest NumPy integer that holds every code."""
        width = next(w for w in (8, 16, 32) if self.bits <= w)
        return np.dtype(f"{'' if self.signed else 'u'}int{width}")

    def values(self) -> np.ndarray:
        """All numbers of the format, ascending: int64 [high - low + 1]."""
        return np.arange(self.low, self.high + 1, dtype=np.int64)

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.bits}{'-narrow' if self.narrow else ''}"


Format = Int

ACCUMULATOR = Int(32)
"""The format of accumulators and of the biases added to them."""


def parse(text: str) -> Format:
    """The format a text names: `int8`, `uint4`, `int8-narrow`. Inverse of `str(format)`.

    Raises EncodingError when the text names none.
    """
    match = _INT_TEXT.fullmatch(text.strip())
    if match is None:
        raise EncodingError(f"no format is called {text!r}: write int2 to int16 or uint2 to uint16, "
                            "with -narrow behind a signed one to drop its lowest code")
    unsigned, bits, narrow = match.groups()
    return Int(int(bits), signed=not unsigned, narrow=bool(narrow))

"""Formats of listed levels, for every codebook that is neither an integer nor a float format."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.rounding import Array, Rounding, half_even
from fewbits.options import options_checked

Ties = Literal["even", "up", "down", "toward-zero", "away"]


@options_checked
@dataclass(frozen=True)
class Levels:
    """A codebook of ascending numbers; a code is an index into it. Unused codes decode to the highest number.

    numbers: 2 to 65536, each finite and in the range of float32.
    thresholds: where encoding goes from one number to the next, ascending, one fewer than numbers; None:
    half way, to the nearest. A number on a threshold follows `ties`: to the even code, up, down, toward
    zero or away from it. Two thresholds may be equal: the number between them is then reached by that
    number alone (LogNet's zero).
    name: what `parse` calls it, if anything. Infinities take the outer codes, NaN the lowest.
    Raises EncodingError for numbers or thresholds out of order or of the wrong count.
    """

    numbers: tuple[float, ...]
    thresholds: tuple[float, ...] | None = None
    ties: Ties = "even"
    name: str | None = field(default=None, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "numbers", tuple(float(v) for v in self.numbers))
        numbers = np.array(self.numbers)
        if not 2 <= len(numbers) <= 65536:
            raise EncodingError(f"a table has 2 to 65536 numbers, not {len(numbers)}")
        if not (np.isfinite(numbers).all() and (abs(numbers) <= np.finfo(np.float32).max).all()):
            raise EncodingError("the numbers of a table must be finite float32")
        if not (np.diff(numbers.astype(np.float32)) > 0).all():
            raise EncodingError("the numbers of a table must ascend, each once, also as float32")
        if self.thresholds is not None:
            object.__setattr__(self, "thresholds", tuple(float(t) for t in self.thresholds))
            if len(self.thresholds) != len(numbers) - 1:
                raise EncodingError(f"{len(numbers)} numbers need {len(numbers) - 1} thresholds between them, "
                                    f"not {len(self.thresholds)}")
            if not (np.diff(self.thresholds) >= 0).all() or not np.isfinite(self.thresholds).all():
                raise EncodingError("the thresholds of a table must ascend and be finite: "
                                    + ", ".join(f"{t:g}" for t in self.thresholds))

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return (len(self.numbers) - 1).bit_length()

    @property
    def low(self) -> int:
        """Lowest code, 0."""
        return 0

    @property
    def high(self) -> int:
        """Highest code in use."""
        return len(self.numbers) - 1

    @property
    def dtype(self) -> np.dtype:
        """The smallest NumPy integer that holds every code."""
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    @property
    def signed(self) -> bool:
        """Whether it holds negative numbers."""
        return self.numbers[0] < 0

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.numbers[0]), abs(self.numbers[-1]))

    @property
    def boundaries(self) -> tuple[float, ...]:
        """The thresholds, or the points half way between the numbers."""
        if self.thresholds is not None:
            return self.thresholds
        return tuple((a + b) / 2 for a, b in zip(self.numbers[:-1], self.numbers[1:], strict=True))

    def values(self) -> np.ndarray:
        """All numbers of the format, ascending: float64 [high + 1]."""
        return np.array(self.numbers)

    def canonical(self, codes: np.ndarray) -> np.ndarray:
        """The code that each code's number is encoded to; unused ones read as the highest number."""
        return np.minimum(codes, self.high).astype(self.dtype)

    def encode(self, numbers: np.ndarray, rounding: Rounding = half_even) -> np.ndarray:
        """Codes of float32 or float64 `numbers` in units of the scale; any shape.

        Raises EncodingError for another rounding than the usual: thresholds and ties are the table's own.
        """
        if rounding is not half_even:
            raise EncodingError(f"{self} has thresholds of its own: it takes no other rounding")
        codes = np.searchsorted(_last_below(self, numbers.dtype), numbers, side="left").astype(self.dtype)
        return np.where(np.isnan(numbers), self.dtype.type(0), codes)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The numbers that codes stand for, float32; any shape."""
        return _numbers(self)[np.minimum(codes, self.high)]

    def nearest(self, numbers: Array, rounding: Rounding = half_even) -> Array:
        """The numbers of the format that NumPy or torch `numbers` are encoded to; float type and shape kept."""
        if isinstance(numbers, torch.Tensor):
            exact = numbers if numbers.dtype == torch.float64 else numbers.float()
            kind = np.dtype(np.float64 if exact.dtype == torch.float64 else np.float32)
            if len(self.numbers) == 2:  # a comparison is several times as fast as a search
                low, high = (float(number) for number in _numbers(self))
                return torch.where(exact > float(_last_below(self, kind)[0]), high, low).to(numbers.dtype)
            codes = torch.bucketize(exact, torch.tensor(_last_below(self, kind), device=exact.device))
            codes = torch.where(torch.isnan(exact), 0, codes)
            return torch.tensor(_numbers(self), device=exact.device)[codes].to(numbers.dtype)
        return self.decode(self.encode(numbers, rounding)).astype(numbers.dtype)

    def __str__(self) -> str:
        if self.name is not None:
            return self.name
        parts = [",".join(map(repr, self.numbers))]
        if self.thresholds is not None:
            parts.append(",".join(map(repr, self.thresholds)))
        return f"table({';'.join(parts)}{'' if self.ties == 'even' else ';' + self.ties})"


def parse_table(text: str) -> Levels | None:
    """Inverse of str for tables without a name: `table(NUMBERS[;THRESHOLDS][;TIES])`, separated by commas.

    None when the text is none of these. Raises EncodingError as Levels does, and for what is no number.
    """
    if not (text.startswith("table(") and text.endswith(")")):
        return None
    parts = text[len("table("):-1].split(";")
    ties = parts.pop() if parts[-1].strip() in get_args(Ties) else "even"
    try:
        lists = [tuple(float(v) for v in part.split(",")) for part in parts]
    except ValueError:
        raise EncodingError(f"{text!r} lists something that is no number: write table(-1,0,1)") from None
    if not 1 <= len(lists) <= 2:
        raise EncodingError(f"{text!r} has {len(lists)} lists: write table(NUMBERS) or table(NUMBERS;THRESHOLDS)")
    return Levels(lists[0], lists[1] if len(lists) == 2 else None, ties.strip())  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _numbers(table: Levels) -> np.ndarray:
    """The numbers as float32 [high + 1]; cached."""
    return np.array(table.numbers, np.float32)


@lru_cache(maxsize=128)
def _last_below(table: Levels, dtype: np.dtype) -> np.ndarray:
    """Per boundary the last number of a float type that still takes the lower code, ascending.

    Comparing with these is exact for every float of that type: the boundary itself may lie between two.
    """
    boundaries = np.array(table.boundaries)
    numbers = np.array(table.numbers)
    upward = {"even": np.arange(len(boundaries)) % 2 == 1, "up": np.full(len(boundaries), True),
              "down": np.full(len(boundaries), False), "toward-zero": abs(numbers[1:]) < abs(numbers[:-1]),
              "away": abs(numbers[1:]) > abs(numbers[:-1])}[table.ties]
    last = boundaries.astype(dtype)
    last = np.where(last > boundaries, np.nextafter(last, dtype.type(-np.inf)), last)  # not above the boundary
    exact = last == boundaries
    return np.where(upward & exact, np.nextafter(last, dtype.type(-np.inf)), last)

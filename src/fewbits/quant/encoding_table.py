"""The encodings of a model as a table: what AIMET prints of its quantizers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Int


@dataclass(frozen=True)
class TensorEncoding:
    """One tensor's. bits: of a code; symmetric: whether the zero point is the middle of the codes; minimum, maximum:
    the numbers of the lowest and the highest code; delta: the scale; offset: minus the zero point, counted from the
    lowest code, so that x = delta · (q + offset) with q from 0 (AIMET's convention): one entry per scale each."""

    name: str
    kind: str
    bits: int
    symmetric: bool
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    delta: tuple[float, ...]
    offset: tuple[int, ...]

    @classmethod
    def of(cls, name: str, kind: str, encoding: Encoding) -> "TensorEncoding":
        """Of integers: exact. Of floats and tables: their range, the scale for delta, offset 0."""
        format = encoding.format
        scale = encoding.scale.astype(np.float64).reshape(-1)
        if not isinstance(format, Int):
            lowest = -format.largest if format.signed else 0.0
            return cls(name, kind, format.bits, format.signed, tuple(lowest * scale), tuple(format.largest * scale),
                       tuple(scale), (0,) * scale.size)
        zero = encoding.zero_point.astype(np.int64).reshape(-1)
        offset = format.low - zero
        return cls(name, kind, format.bits, bool(format.signed and not zero.any()), tuple(scale * (format.low - zero)),
                   tuple(scale * (format.high - zero)), tuple(scale), tuple(int(each) for each in offset))


class EncodingTable(Sequence[TensorEncoding]):
    """Rows in the model's order; prints as a table, a row per tensor, ranges over the scales of a tensor summarised."""

    def __init__(self, rows: Iterable[TensorEncoding]):
        self._rows = tuple(rows)

    def __getitem__(self, index):
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[TensorEncoding]:
        return iter(self._rows)

    def named(self, name: str) -> TensorEncoding:
        """The row of one tensor. Raises KeyError for none."""
        for row in self._rows:
            if row.name == name:
                return row
        raise KeyError(f"no tensor is called {name!r}")

    def __str__(self) -> str:
        head = ("tensor", "kind", "bits", "min", "max", "delta", "offset")
        lines = [head, *((row.name, row.kind, f"{row.bits}{' symmetric' if row.symmetric else ''}",
                          *(_summary(each) for each in (row.minimum, row.maximum, row.delta, row.offset)))
                         for row in self._rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
                         for line in lines)


def _summary(numbers: Sequence[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:.6g}" if low == high else f"{low:.6g} … {high:.6g}"

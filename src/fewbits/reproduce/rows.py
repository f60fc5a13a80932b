"""All rows, by name. A new method adds its own here."""

from collections.abc import Mapping
from types import MappingProxyType

from fewbits.reproduce import after_training, before_after, deep_compression, few_bits, profit, ristretto
from fewbits.reproduce.row import Row

ROWS: Mapping[str, Row] = MappingProxyType(
    {row.name: row for row in (*deep_compression.ROWS, *ristretto.ROWS, *few_bits.ROWS, *before_after.ROWS,
                               *profit.ROWS, *after_training.ROWS)})

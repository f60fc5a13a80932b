"""Sizes as ATen and the program write them."""

from typing import Any

from fewbits.graph.graph import Shape
from fewbits.program.ops import Margins, Sizes


def sizes_of(value: Any, rank: int) -> Sizes:
    """ATen's lists of sizes, one for every axis or one for all."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * rank if len(values) == 1 else values)


def margins_of(padding: Any, kernel: Sizes, dilation: Sizes) -> Margins:
    """"same" pads by dilation · (kernel − 1) in all, the odd one behind."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    sizes = sizes_of(0 if padding == "valid" else padding, len(kernel))
    return tuple((size, size) for size in sizes)


def minus_one(shape: Shape) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in shape)

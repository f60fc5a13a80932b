"""Shapes of the graph as the program writes them."""

from fewbits.capture.free_sizes import sizes_kept
from fewbits.graph.graph import Shape


def minus_one(shape: Shape) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in shape)


def reshaped(before: Shape, after: Shape, free: tuple[int, ...]) -> tuple[int, ...]:
    """What a reshape writes where some axes of its result are free; without any, -1 for the batch."""
    if not free:
        return minus_one(after)
    sizes = sizes_kept(before, after, free)
    assert sizes is not None, "what has no such form is not free"
    return sizes

"""Shapes of the graph as the program writes them."""

from fewbits.graph.graph import Shape


def minus_one(shape: Shape) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in shape)

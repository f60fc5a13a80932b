"""Where the values of a program lie while it runs: one arena, offsets in it, and what sets its size.

Source: greedy by size, Pisarchyk and Lee 2020, arXiv:2001.03288, §5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fewbits.errors import ProgramError

ALIGNMENT = 64
"""Bytes: offsets are multiples of it."""


@dataclass(frozen=True)
class Buffer:
    """Memory that is needed from step `first` to step `last`, both included."""

    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Arena:
    """offsets: of every buffer, in bytes, by name; size: of the arena; needed: the most bytes that any one step needs
    at once, below which no arrangement comes; peak: that step."""

    offsets: dict[str, int]
    size: int
    needed: int
    peak: int


def arranged(buffers: Sequence[Buffer], alignment: int = ALIGNMENT) -> Arena:
    """Places the largest buffer first, each at the lowest offset where it meets no other that is needed while it is.

    Raises ProgramError for a buffer that ends before it begins, has a negative size, or a name that occurs twice.
    """
    offsets: dict[str, int] = {}
    for buffer in buffers:
        if buffer.last < buffer.first or buffer.size < 0:
            raise ProgramError(f"buffer {buffer.name!r} of {buffer.size} bytes, steps {buffer.first} to {buffer.last}, "
                               "cannot be placed")
    placed: list[tuple[int, int, Buffer]] = []  # begin, end
    for buffer in sorted(buffers, key=lambda each: (-each.size, each.first, each.name)):
        if buffer.name in offsets:
            raise ProgramError(f"two buffers are called {buffer.name!r}")
        at, size = 0, _aligned(buffer.size, alignment)
        for begin, end in sorted((begin, end) for begin, end, other in placed if _meet(other, buffer)):
            if at + size <= begin:
                break
            at = max(at, end)
        offsets[buffer.name] = at
        placed.append((at, at + size, buffer))
    needed, peak = _needed(buffers, alignment)
    return Arena(offsets, max((end for _, end, _ in placed), default=0), needed, peak)


def _meet(one: Buffer, other: Buffer) -> bool:
    return one.first <= other.last and other.first <= one.last


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _needed(buffers: Sequence[Buffer], alignment: int) -> tuple[int, int]:
    """The most bytes that are needed at one step, and the first such step."""
    changes: dict[int, int] = {}
    for buffer in buffers:
        size = _aligned(buffer.size, alignment)
        changes[buffer.first] = changes.get(buffer.first, 0) + size
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - size
    now, most, peak = 0, 0, 0
    for step in sorted(changes):
        now += changes[step]
        if now > most:
            most, peak = now, step
    return most, peak

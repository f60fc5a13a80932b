"""The check that every number format must pass."""

import numpy as np
import torch

from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Format, Levels, parse
from fewbits.numerics.packing import pack, unpack


def check_format(format: Format) -> None:
    """Raise AssertionError, naming the format and the rule, unless the format is sound.

    Over all codes of formats of at most 16 bits (a sample of larger ones): its text parses back to it; a
    code decodes and encodes to its canonical code, which is its own fixed point; no code leaves its type;
    codes survive packing. Over a grid of float32 around every boundary: encoding is monotone, idempotent,
    to the nearest but where the format has thresholds of its own; NumPy and torch give the same numbers;
    float64 input gives the same codes; NaN, infinities and empty arrays have an answer.
    """
    codes = _all_codes(format)
    _check(format, parse(str(format)) == format, f"its text {format!s} parses to something else")
    _check(format, int(codes[0]) == format.low and int(codes[-1]) == format.high, "low and high are not its ends")
    numbers = format.decode(codes)
    _check(format, numbers.dtype == np.float32 and numbers.shape == codes.shape, "decode gives no float32")
    canonical = format.canonical(codes)
    _check(format, np.array_equal(format.encode(numbers), canonical), "a code does not come back from its number")
    _check(format, np.array_equal(format.canonical(canonical), canonical), "canonical codes have canonical codes")
    _check(format, np.array_equal(format.decode(canonical), numbers, equal_nan=True),
           "an alias stands for another number than its canonical code")
    _check(format, np.array_equal(unpack(pack(canonical, format), format, codes.shape), canonical),
           "packing changes codes")
    grid = boundary_grid(format)
    _check_grid(format, grid)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38, -1e38, 1e-45], np.float32)
    answers = format.encode(odd)
    _check(format, answers.dtype == format.dtype, "NaN or Inf leave the type of its codes")
    _check(format, np.array_equal(format.nearest(torch.from_numpy(odd)).numpy(), format.decode(answers),
                                  equal_nan=True), "torch and NumPy disagree on NaN, Inf or 0")
    empty = Encoding(format, 1.0).encode(np.zeros((0, 3), np.float32))
    _check(format, empty.codes.shape == (0, 3), "an empty array does not stay empty")


def boundary_grid(format: Format, around: int = 2) -> np.ndarray:
    """float32, ascending: every number of the format, every point half way or threshold between two, and the
    `around` nearest float32 on both sides of each; a sample of them above 16 bits."""
    numbers = _finite_numbers(format)
    between = np.array(format.boundaries) if isinstance(format, Levels) else (numbers[:-1] + numbers[1:]) / 2
    points = np.concatenate([numbers, between]).astype(np.float32)
    grid = [points]
    for direction in (-np.inf, np.inf):
        moved = points
        for _ in range(around):
            moved = np.nextafter(moved, np.float32(direction))
            grid.append(moved)
    everything = np.concatenate(grid)
    return np.unique(everything[np.isfinite(everything)])


def _check_grid(format: Format, grid: np.ndarray) -> None:
    codes = format.encode(grid)
    got = format.decode(codes)
    exact = got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        rising = np.diff(exact) >= 0
    inside = np.isfinite(exact)
    _check(format, bool(rising[inside[:-1] & inside[1:]].all()), "encoding is not monotone")
    _check(format, np.array_equal(format.decode(format.encode(got)), got, equal_nan=True), "encoding is not idempotent")
    _check(format, np.array_equal(format.encode(grid.astype(np.float64)), codes), "float64 gives other codes")
    _check(format, np.array_equal(format.nearest(torch.from_numpy(grid)).numpy(), got, equal_nan=True),
           "torch and NumPy disagree")
    if isinstance(format, Levels) and format.thresholds is not None:
        return
    numbers = _finite_numbers(format)
    numbers = numbers.astype(np.float32).astype(np.float64)
    within = (grid >= numbers[0]) & (grid <= numbers[-1])
    x = grid[within].astype(np.float64)
    place = np.searchsorted(numbers, x).clip(1, len(numbers) - 1)
    least = np.minimum(abs(x - numbers[place - 1]), abs(x - numbers[place]))
    slack = np.spacing(abs(x).astype(np.float32)).astype(np.float64) if isinstance(format, Levels) else 0.0
    _check(format, bool((abs(x - exact[within]) <= least + slack).all()), "encoding is not to the nearest number")


def _all_codes(format: Format) -> np.ndarray:
    if format.high - format.low < 2**20:
        return np.arange(format.low, format.high + 1).astype(format.dtype)
    sample = np.random.default_rng(0).integers(format.low, format.high, 2**16, endpoint=True)
    return np.unique(np.concatenate([sample, [format.low, format.high]])).astype(format.dtype)


def _finite_numbers(format: Format) -> np.ndarray:
    if format.bits <= 20:
        return format.values().astype(np.float64)
    numbers = format.decode(_all_codes(format)).astype(np.float64)
    return np.unique(numbers[np.isfinite(numbers)])


def _check(format: Format, holds: bool, fault: str) -> None:
    if not holds:
        raise AssertionError(f"{format}: {fault}")



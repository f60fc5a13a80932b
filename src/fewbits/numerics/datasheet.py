"""Formats as text: the list of all, and the data sheet of one."""

import numpy as np

from fewbits.numerics.catalogue import CATALOGUE, Entry
from fewbits.numerics.fields import float_fields
from fewbits.numerics.formats import Float, Format, Int, Levels

_LISTED = 256
"""Up to so many codes a data sheet lists them all."""


def listing() -> str:
    """One line for each format of the catalogue, by family."""
    lines: list[str] = []
    family = ""
    for entry in CATALOGUE:
        if entry.family != family:
            family = entry.family
            lines += ["", family]
        lines.append(f"  {entry.name:<18}{entry.format.bits:>3} bits  {entry.about}")
    return "\n".join(lines[1:])


def data_sheet(entry: Entry) -> str:
    """Everything about one format: range, largest and smallest numbers, overflow and NaN handling, and its codes."""
    title = f"{entry.name}: {entry.about}" if entry.about else entry.name
    text = "\n".join([title, *(f"  {name:<20}{value}" for name, value in facts(entry).items())])
    return f"{text}\n\n{_codes(entry.format)}"


def facts(entry: Entry) -> dict[str, str]:
    """The rows of a data sheet, codes left out: what is told, by what it is about."""
    format = entry.format
    return dict([("bits", str(format.bits)), ("codes", f"{format.low} to {format.high}, stored as {format.dtype}"),
                 *_numbers(format), *_kind(format)])


def one_number(format: Format, number: float) -> str:
    """What a number becomes in the format: nearest number, code and error, and of a float its fields."""
    if isinstance(format, Float):
        fields = float_fields(format, number)
        text, value = str(fields), fields.value
    else:
        code = int(np.asarray(format.encode(np.array([number / _unit(format)]))).item())
        value = float(format.decode(np.array([code], format.dtype))[0]) * _unit(format)
        bits = f"{code & (2**format.bits - 1):0{format.bits}b}"
        text = f"{exact(value)}: code {code}, bits {bits}"
    if value == number:
        return text
    off = f"{number:.10g} is {abs(value - number):.3g} away" if np.isfinite(value) else f"{number:.10g} overflows"
    return f"{text}\n{off}"


def exact(number: float) -> str:
    """The shortest decimal text that reads back as the same float32; integers up to 2^53 in full."""
    if number == int(number) and abs(number) < 2.0**53 if np.isfinite(number) else False:
        return "-0" if number == 0 and np.signbit(number) else str(int(number))
    return str(np.float32(number))


def _numbers(format: Format) -> list[tuple[str, str]]:
    values = format.values() if format.bits <= 20 else None
    largest = format.largest * _unit(format)
    lowest = float(values[0]) * _unit(format) if values is not None else -largest
    rows = [("range", f"{exact(lowest)} to {exact(largest)}")]
    if values is not None:
        positive = values[values > 0]
        rows.insert(0, ("numbers", f"{len(values)}{'' if 0 in values else ', without 0'}"))
        if len(positive) and not isinstance(format, Float):
            rows.append(("smallest above 0", exact(float(positive[0]) * _unit(format))))
    return rows


def _kind(format: Format) -> list[tuple[str, str]]:
    if isinstance(format, Int):
        point = [] if format.fraction is None else [("step", exact(_unit(format)))]
        return [*point, ("rounding", "half-even, or any rule of rounding.py by name"),
                ("beyond the range", "saturates; infinities too"), ("NaN", f"becomes the lowest code, {format.low}")]
    if isinstance(format, Levels):
        limits = "half way" if format.thresholds is None else ", ".join(exact(t) for t in format.thresholds)
        return [("thresholds", limits), ("ties", format.ties), ("beyond the range", "the outer codes; infinities too"),
                ("NaN", "becomes the lowest code, 0")]
    overflow = ("saturates to the largest" if format.saturates else
                "becomes infinity" if format.infinity_code is not None else "becomes NaN")
    infinity = "none; it overflows" if format.infinity_code is None else f"code {format.infinity_code:#x}"
    nan = (f"none; it becomes the lowest number, {exact(format.lowest)}" if format.nan_code is None else
           f"code {format.nan_code:#x}; other patterns of NaN read as this one")
    subnormal = format.underflow == "gradual" and format.smallest < format.smallest_normal
    return [("exponent bits", f"{format.exponent_bits}, bias {format.bias}"),
            ("mantissa bits", str(format.mantissa_bits)),
            ("smallest normal", exact(format.smallest_normal)),
            ("smallest subnormal", exact(format.smallest) if subnormal else "none"),
            ("rounding", "half-even, or any rule of rounding.py by name"),
            ("overflow", overflow), ("infinity", infinity), ("NaN", nan)]


def _codes(format: Format) -> str:
    count = format.high - format.low + 1
    width = 4 if count <= 16 else 8
    shown = range(format.low, format.high + 1)
    if count > _LISTED:
        shown = [*shown[:8], *shown[count // 2 - 4:count // 2 + 4], *shown[-8:]]
    codes = np.array(shown).astype(format.dtype)
    numbers = format.decode(codes).astype(np.float64) * _unit(format)
    hexadecimal = isinstance(format, Float)
    digits = max(len(f"{format.high:x}"), 1)
    cells = [f"{int(code):#0{digits + 2}x} {_told(v)}" if hexadecimal else f"{int(code)} {_told(v)}"
             for code, v in zip(codes, numbers, strict=True)]
    size = max(map(len, cells)) + 2
    lines = ["".join(cell.ljust(size) for cell in cells[i:i + width]).rstrip() for i in range(0, len(cells), width)]
    title = "codes and their numbers" if count <= _LISTED else f"the first, middle and last of {count} codes"
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _told(number: float) -> str:
    return exact(number) if np.isfinite(number) else str(number)


def _unit(format: Format) -> float:
    """The scale that the format itself fixes (fixed point), else 1."""
    return 2.0**-format.fraction if isinstance(format, Int) and format.fraction is not None else 1.0

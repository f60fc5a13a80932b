"""The field of a picture: two axes, their ticks and titles, and where a number stands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 400, 70, 34, 20, 52
COLOURS = ("#1f5fa8", "#c4571a", "#2e7d4f", "#7a3d9a", "#8a6d00", "#555555")
GREY, BLACK = "#5f5f5f", "#111111"
_LETTER, _TITLE_LETTER = 6.6, 7.7  # widths of letters, about


@dataclass(frozen=True)
class Axis:
    """title, with its unit; logarithmic: powers of ten at even distances, for numbers above 0."""

    title: str
    logarithmic: bool = False

    def scaled(self, value: float) -> float:
        """Where a number stands, before the axis is stretched to the picture."""
        return math.log10(value) if self.logarithmic else value

    def shows(self, value: float) -> bool:
        """Whether the number can stand on the axis."""
        return math.isfinite(value) and (value > 0 or not self.logarithmic)


@dataclass(frozen=True)
class Field:
    """Two axes and what they reach from and to, in scaled numbers; height: of the whole picture."""

    x: Axis
    y: Axis
    x_reach: tuple[float, float]
    y_reach: tuple[float, float]
    height: int = HEIGHT

    def across(self, value: float) -> float:
        """The x of the drawing where a number stands."""
        low, high = self.x_reach
        return LEFT + (WIDTH - LEFT - RIGHT) * (self.x.scaled(value) - low) / (high - low)

    def up(self, value: float) -> float:
        """The y of the drawing where a number stands."""
        low, high = self.y_reach
        return self.floor - (self.floor - TOP) * (self.y.scaled(value) - low) / (high - low)

    @property
    def floor(self) -> float:
        """The y of the drawing where the field ends."""
        return self.height - BOTTOM

    def open(self, title: str) -> list[str]:
        """The head of the drawing, with its title."""
        return [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" role="img" '
                f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
                f'<rect width="{WIDTH}" height="{self.height}" fill="#ffffff"/>',
                text(LEFT, 20, title, "start", BLACK, 14)]

    def grid_x(self) -> list[str]:
        """Ticks of the x axis, with lines across the field."""
        parts = []
        for value in ticks(*self.x_reach, self.x.logarithmic):
            at = self.across(value)
            parts += [f'<path d="M{at:.1f} {TOP}V{self.floor:g}" stroke="#e2e2e2"/>',
                      text(at, self.floor + 16, number(value), "middle")]
        return parts

    def grid_y(self) -> list[str]:
        """Ticks of the y axis, with lines across the field."""
        parts = []
        for value in ticks(*self.y_reach, self.y.logarithmic):
            at = self.up(value)
            parts += [f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#e2e2e2"/>',
                      text(LEFT - 6, at + 4, number(value), "end")]
        return parts

    def titles(self) -> list[str]:
        """Titles of both axes."""
        middle = (TOP + self.floor) / 2
        return [text((LEFT + WIDTH - RIGHT) / 2, self.height - 14, self.x.title, "middle", BLACK),
                f'<text x="16" y="{middle:.1f}" transform="rotate(-90 16 {middle:.1f})" text-anchor="middle" '
                f'fill="{BLACK}">{escape(self.y.title)}</text>']

    def marks(self, marks: Sequence[tuple[float, str]]) -> list[str]:
        """Dashed vertical lines with what they mean, one text below the other."""
        parts = []
        for place, (at, label) in enumerate((at, label) for at, label in marks if self.x.shows(at)):
            x, right = self.across(at), self.across(at) > WIDTH * 0.7
            parts += [f'<path d="M{x:.1f} {TOP}V{self.floor:g}" stroke="{GREY}" stroke-dasharray="4 3"/>',
                      text(x + (-4 if right else 4), TOP + 12 + 15 * place, label, "end" if right else "start", BLACK)]
        return parts


def legend(names: Sequence[str], title: str, at_left: bool = False) -> list[str]:
    """Names of the series with their colours: beside the title where there is room, else in a corner of the field."""
    if beside_title(names, title):
        parts, x = [], WIDTH - RIGHT - sum(_LETTER * len(name) + 24 for name in names) + 14
        for colour, name in zip(colours(len(names)), names, strict=True):
            parts += [f'<circle cx="{x:.1f}" cy="16" r="4" fill="{colour}"/>', text(x + 9, 20, name, "start", BLACK)]
            x += _LETTER * len(name) + 24
        return parts
    longest = max(map(len, names))
    x = LEFT + 14 if at_left else WIDTH - RIGHT - _LETTER * longest - 14
    parts = [f'<rect x="{x - 10:.1f}" y="{TOP + 1}" width="{_LETTER * longest + 22:.1f}" '
             f'height="{16 * len(names) + 6}" fill="#ffffff" fill-opacity="0.85"/>']
    for place, (colour, name) in enumerate(zip(colours(len(names)), names, strict=True)):
        parts += [f'<circle cx="{x:.1f}" cy="{TOP + 12 + 16 * place}" r="4" fill="{colour}"/>',
                  text(x + 9, TOP + 16 + 16 * place, name, "start", BLACK)]
    return parts


def beside_title(names: Sequence[str], title: str) -> bool:
    """Whether the names of the series fit into the line of the title."""
    return _TITLE_LETTER * len(title) + sum(_LETTER * len(name) + 24 for name in names) < WIDTH - LEFT - RIGHT


def colours(count: int) -> list[str]:
    """One colour for each series."""
    return [COLOURS[place % len(COLOURS)] for place in range(count)]


def reach(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that holds the values, with a margin."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 0.5)
    return low - margin, high + margin


def ticks(low: float, high: float, logarithmic: bool = False) -> list[float]:
    """Round numbers between two ends: four to eight of them, powers of ten on a logarithmic axis of two or more."""
    if logarithmic and math.floor(high) - math.ceil(low) >= 1:
        every = max(1, (math.floor(high) - math.ceil(low)) // 7 + 1)
        return [10.0**e for e in range(math.ceil(low), math.floor(high) + 1, every)]
    if logarithmic:
        return [value for value in ticks(10**low, 10**high) if low <= math.log10(max(value, 1e-300)) <= high]
    raw = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [step * place for place in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number in few letters: 12, 0.25, 1.5e-06, 3.4M."""
    magnitude = abs(value)
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if magnitude >= unit:
            return f"{value / (unit if name != 'k' else 1e3):.3g}{name}".replace("-", "\u2212")
    return f"{value:.4g}".replace("-", "\u2212")


def text(x: float, y: float, what: str, anchor: str, colour: str = GREY, size: int = 12) -> str:
    """A line of text."""
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">'
            f"{escape(what)}</text>")

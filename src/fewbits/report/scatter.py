"""Points on two axes as a static SVG: fronts of plans, curves of training, one quantity against another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 400, 70, 34, 20, 52
_COLOURS = ("#1f5fa8", "#c4571a", "#2e7d4f", "#7a3d9a", "#8a6d00", "#555555")
_GREY = "#767676"


@dataclass(frozen=True)
class Series:
    """Points of one kind. labels: beside each point, '' for none; line: whether they are joined in their order."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str] = ()
    line: bool = False


@dataclass(frozen=True)
class Axis:
    """title, with its unit; logarithmic: powers of ten at even distances, for numbers above 0."""

    title: str
    logarithmic: bool = False

    def scaled(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value


def scatter(title: str, x: Axis, y: Axis, series: Sequence[Series], marks: Sequence[tuple[float, str]] = ()) -> str:
    """The picture. marks: (x, text) of vertical lines, such as the step at which something was switched on.

    Points that are not finite, or not above 0 on a logarithmic axis, are left out.
    """
    points = [[(a, b, label) for a, b, label in zip(one.x, one.y, [*one.labels, *[""] * len(one.x)], strict=False)
               if _shown(a, x) and _shown(b, y)] for one in series]
    every = [point for some in points for point in some]
    xs = [x.scaled(a) for a, _, _ in every] + [x.scaled(at) for at, _ in marks if _shown(at, x)]
    ys = [y.scaled(b) for _, b, _ in every]
    (x_low, x_high), (y_low, y_high) = _reach(xs), _reach(ys)

    def across(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (x.scaled(value) - x_low) / (x_high - x_low)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (y.scaled(value) - y_low) / (y_high - y_low)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
             f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
             f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
             _text(_LEFT, 20, title, "start", "#111111", 14)]
    for value in ticks(x_low, x_high, x.logarithmic):
        at = across(value)
        parts.append(f'<path d="M{at:.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#e2e2e2"/>')
        parts.append(_text(at, _HEIGHT - _BOTTOM + 16, number(value), "middle"))
    for value in ticks(y_low, y_high, y.logarithmic):
        at = up(value)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="#e2e2e2"/>')
        parts.append(_text(_LEFT - 6, at + 4, number(value), "end"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, x.title, "middle", "#111111"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="16" y="{middle:.1f}" transform="rotate(-90 16 {middle:.1f})" text-anchor="middle" '
                 f'fill="#111111">{escape(y.title)}</text>')
    for at, text in marks:
        if _shown(at, x):
            parts.append(f'<path d="M{across(at):.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="{_GREY}" '
                         'stroke-dasharray="4 3"/>')
            parts.append(_text(across(at) + 4, _TOP + 12, text, "start"))
    for colour, one, some in zip(_colours(len(series)), series, points, strict=True):
        if one.line and len(some) > 1:
            path = "L".join(f"{across(a):.1f} {up(b):.1f}" for a, b, _ in some)
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for a, b, label in some:
            parts.append(f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="3.5" fill="{colour}">'
                         f"<title>{escape(label or one.name)}: {number(a)}, {number(b)}</title></circle>")
            if label:
                parts.append(_text(across(a) + 6, up(b) - 5, label, "start", colour, 10))
    if len(series) > 1:
        for place, (colour, one) in enumerate(zip(_colours(len(series)), series, strict=True)):
            parts.append(f'<circle cx="{_WIDTH - 150}" cy="{_TOP + 10 + 16 * place}" r="4" fill="{colour}"/>')
            parts.append(_text(_WIDTH - 140, _TOP + 14 + 16 * place, one.name, "start", "#111111"))
    return "\n".join([*parts, "</svg>", ""])


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
            return f"{value / (unit if name != 'k' else 1e3):.3g}{name}"
    return f"{value:.4g}"


def _shown(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and (value > 0 or not axis.logarithmic)


def _reach(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 0.5)
    return low - margin, high + margin


def _colours(count: int) -> list[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(count)]


def _text(x: float, y: float, text: str, anchor: str, colour: str = _GREY, size: int = 12) -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">'
            f"{escape(text)}</text>")

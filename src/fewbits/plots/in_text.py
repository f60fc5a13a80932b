"""Points on two axes as lines of text, for a terminal: each point is a letter, which a legend explains."""

from collections.abc import Sequence
from string import ascii_uppercase

from fewbits.plots.axes import Axis, number

WIDTH, HEIGHT = 60, 16  # places across and up


def points_in_text(x: Axis, y: Axis, points: Sequence[tuple[str, float, float]]) -> str:
    """The picture. points: (name, x, y); those that are not finite, or not above 0 on a logarithmic axis, are left out.
    Where two lie on one place the first is drawn, and the legend tells both."""
    shown = [(name, a, b) for name, a, b in points if x.shows(a) and y.shows(b)]
    if not shown:
        return "nothing to draw"
    xs, ys = [x.scaled(a) for _, a, _ in shown], [y.scaled(b) for _, _, b in shown]
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    legend = []
    for place, ((name, a, b), across, up) in enumerate(zip(shown, xs, ys, strict=True)):
        letter = ascii_uppercase[place % 26]
        column, row = _place(across, xs, WIDTH), HEIGHT - 1 - _place(up, ys, HEIGHT)
        if grid[row][column] == " ":
            grid[row][column] = letter
        legend.append(f"{letter}  {name}: {number(a)}, {number(b)}")
    values = [value for _, _, value in shown]
    top, bottom = number(max(values)), number(min(values))
    margin = max(len(top), len(bottom))
    rows = [f"{top if not row else bottom if row == HEIGHT - 1 else '':>{margin}} │{''.join(cells)}".rstrip()
            for row, cells in enumerate(grid)]
    values = [value for _, value, _ in shown]
    low, high = number(min(values)), number(max(values))
    axis = f"{'':>{margin}} └{'─' * WIDTH}"
    ends = f"{'':>{margin}}  {low}{high:>{WIDTH - len(low)}}"
    return "\n".join([y.title, *rows, axis, ends, f"{x.title:>{margin + 2 + WIDTH}}", *legend])


def _place(value: float, values: Sequence[float], size: int) -> int:
    low, high = min(values), max(values)
    return round((value - low) / (high - low) * (size - 1)) if high > low else size // 2

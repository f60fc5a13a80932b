"""Numbers as a reader wants them."""

from fewbits.graph.graph import Shape

MINUS, TIMES = "\u2212", "\u00d7"


def place(value: float) -> str:
    """Where a shape stands, in units of its drawing."""
    return f"{value:.2f}"


def percent(share: float, digits: int = 2) -> str:
    """0.98441 → `98.44 %`."""
    return f"{100 * share:.{digits}f}\u00a0%"


def points(share: float) -> str:
    """A signed difference of two shares in percentage points: -0.0011 → `-0.11`, with a true minus."""
    value = round(100 * share, 2)
    sign = MINUS if value < 0 else "+" if value > 0 else "±"
    return f"{sign}{abs(value):.2f}"


def count(number: int) -> str:
    """12345678 → `12 345 678`, with narrow no-break spaces."""
    return f"{number:,}".replace(",", "\u202f")


def size(number: int) -> str:
    """Bytes with a unit, in steps of 1000 (SI): 64321 → `64.3 kB`."""
    for unit, scale in (("MB", 1_000_000), ("kB", 1_000)):
        if number >= scale:
            return f"{number / scale:.1f}\u00a0{unit}"
    return f"{number}\u00a0B"


def milliseconds(value: float) -> str:
    """Three significant digits: 0.01234 → `12.3 µs`, 4.56 → `4.56 ms`."""
    if value < 0.1:
        return f"{1000 * value:.3g}\u00a0µs"
    return f"{value:.3g}\u00a0ms" if value < 100 else f"{value:.0f}\u00a0ms"


def energy(picojoules: tuple[float, float]) -> str:
    """Lowest and highest, in a unit: (2.5e5, 2.5e5) → `0.25 µJ`, (1e5, 2e5) → `0.1 to 0.2 µJ`."""
    low, high = (f"{value * 1e-6:.3g}" for value in picojoules)
    return f"{low}\u00a0µJ" if low == high else f"{low} to {high}\u00a0µJ"


def factor(ratio: tuple[float, float]) -> str:
    """Lowest and highest quotient: (4.1, 4.1) → `4.1×`."""
    low, high = (f"{value:.2g}" for value in sorted(ratio))
    return f"{low}{TIMES}" if low == high else f"{low} to {high}{TIMES}"


def steps(value: float) -> str:
    """A distance in steps: `0`, `0.5`, `1 470`."""
    return count(round(value)) if value >= 10 else f"{value:.2g}"


def products(number: int) -> str:
    """Multiply-accumulates with a unit: 40 813 184 → `40.8 M`."""
    for unit, scale in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= scale:
            return f"{number / scale:.3g}\u00a0{unit}"
    return str(number)


def shape(sizes: Shape) -> str:
    """(None, 16, 8) → N, 16 and 8 with multiplication signs between; a scalar is `1`."""
    return TIMES.join("N" if s is None else str(s) for s in sizes) or "1"


def inside(names: tuple[str, ...]) -> str:
    """What is said of tensors inside of recurrences beside a table of tensors; "" where there are none."""
    if not names:
        return ""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return (f"Not measured here: {len(names)} tensors inside recurrences, which have a value at every step "
            f"({', '.join(names[:2])}{more}).")

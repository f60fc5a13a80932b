"""Plans of one network beside each other: what each keeps of the accuracy, and what it takes of a machine."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fewbits.errors import OptionError
from fewbits.plots.axes import Axis
from fewbits.plots.in_text import points_in_text
from fewbits.plots.picture import Picture
from fewbits.plots.points import Series, points
from fewbits.report import text
from fewbits.report.accuracy import Comparison
from fewbits.report.footprint import Footprint

_NOTHING = Footprint(0, 0, 0, 0)


@dataclass(frozen=True)
class PlanFigures:
    """One plan, or the float network.

    comparison: of its Program with the float network, None of that itself; labelled: whether its accuracies mean
    something; bytes: of what a file must hold; energy: of one input in picojoules (low, high), bytes from on-chip
    memory; latency: median milliseconds of one input in the engine that was chosen, None where it does not run it;
    refused: why there are no figures, '' where there are.
    """

    name: str
    comparison: Comparison | None = None
    labelled: bool = True
    bytes: int = 0
    footprint: Footprint = _NOTHING
    energy: tuple[float, float] = (0.0, 0.0)
    latency: float | None = None
    refused: str = ""


def _compared(figure: Callable[[Comparison], float]) -> Callable[[PlanFigures], float]:
    return lambda plan: float("nan") if plan.comparison is None else figure(plan.comparison)


@dataclass(frozen=True)
class Quantity:
    """What a picture may show of plans: its axis, and how it is read off."""

    axis: Axis
    of: Callable[[PlanFigures], float]


QUANTITIES: Mapping[str, Quantity] = {
    "accuracy": Quantity(Axis("top-1, %"), _compared(lambda seen: 100 * seen.accuracy.mean)),
    "flips": Quantity(Axis("classes changed, %"), _compared(lambda seen: 100 * seen.flips / seen.samples)),
    "sqnr": Quantity(Axis("mean logit SQNR, dB"), _compared(lambda seen: seen.sqnr)),
    "bytes": Quantity(Axis("bytes", logarithmic=True), lambda plan: plan.bytes),
    "weight-memory": Quantity(Axis("bytes of weights", logarithmic=True),
                              lambda plan: plan.footprint.weight_memory),
    "activation-memory": Quantity(Axis("bytes of activations at once", logarithmic=True),
                                  lambda plan: plan.footprint.activation_memory),
    "bops": Quantity(Axis("bit operations", logarithmic=True), lambda plan: plan.footprint.bops),
    "energy": Quantity(Axis("energy of one input, pJ", logarithmic=True), lambda plan: plan.energy[0]),
    "latency": Quantity(Axis("ms of one input", logarithmic=True),
                        lambda plan: float("nan") if plan.latency is None else plan.latency),
}
"""By the names that users write."""


@dataclass(frozen=True)
class PlanComparison:
    """original: the float network; plans: in the order asked for; engine: whose latency stands there, '' for none;
    model: its name."""

    model: str
    original: PlanFigures
    plans: tuple[PlanFigures, ...]
    engine: str = ""

    def to_json(self) -> str:
        """Everything, as plain values."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    def picture(self, x: str = "bytes", y: str = "sqnr") -> Picture:
        """Two quantities of QUANTITIES against each other. Raises OptionError for another name."""
        across, up = quantity(x), quantity(y)
        plans = [plan for plan in self.plans if not plan.refused]
        series = [Series("plans", [across.of(plan) for plan in plans], [up.of(plan) for plan in plans],
                         [plan.name for plan in plans])]
        if (place := self._of_float(x, y)) is not None:
            series.append(Series("float", [place[0]], [place[1]], ["float"]))
        return points(f"{self.model}: {y} by {x}", across.axis, up.axis, series)

    def text_picture(self, x: str = "bytes", y: str = "sqnr") -> str:
        """The same in lines of text, for a terminal."""
        across, up = quantity(x), quantity(y)
        shown = [(plan.name, across.of(plan), up.of(plan)) for plan in self.plans if not plan.refused]
        if (place := self._of_float(x, y)) is not None:
            shown.append(("float", *place))
        return points_in_text(across.axis, up.axis, shown)

    def _of_float(self, x: str, y: str) -> tuple[float, float] | None:
        """The float network's point, where both quantities mean something of it."""
        seen = next((plan.comparison for plan in self.plans if plan.comparison is not None), None)
        place = []
        for name in (x, y):
            if name == "accuracy" and seen is not None:
                place.append(100 * seen.float_accuracy.mean)
            elif name in ("accuracy", "flips", "sqnr"):
                return None
            else:
                place.append(quantity(name).of(self.original))
        return place[0], place[1]

    def render(self, console: Console | None = None) -> None:
        """Prints the table: a column a plan."""
        console = console or Console()
        table = Table(title=self.model, title_justify="left", title_style="bold")
        table.add_column("", no_wrap=True)
        for plan in (self.original, *self.plans):
            table.add_column(escape(plan.name), justify="right", overflow="fold")
        for head, cells in self.rows():
            table.add_row(head, *map(escape, cells))
        console.print(table)
        for plan in self.plans:
            if plan.refused:
                console.print(f"{plan.name} is refused: {plan.refused}", highlight=False, markup=False,
                              soft_wrap=True)

    def rows(self) -> list[tuple[str, list[str]]]:
        """What a table says: (what, of the float network and of each plan)."""
        plans = (self.original, *self.plans)
        seen = next((plan.comparison for plan in self.plans if plan.comparison is not None), None)
        labelled = all(plan.labelled for plan in self.plans)

        def compared(figure: Callable[[Comparison], str], of_float: str = "") -> list[str]:
            return [of_float, *("–" if plan.comparison is None else figure(plan.comparison) for plan in self.plans)]

        def counted(figure: Callable[[PlanFigures], str]) -> list[str]:
            return ["–" if plan.refused else figure(plan) for plan in plans]

        rows = []
        if seen is not None and labelled:
            rows += [(f"top-1 of {text.count(seen.samples)}", compared(lambda each: text.percent(each.accuracy.mean),
                                                                      text.percent(seen.float_accuracy.mean))),
                     ("less float, points", compared(lambda each: text.points(each.difference))),
                     ("  95 % interval", compared(lambda each: " to ".join(map(text.points, each.interval))))]
        rows += [("classes changed", compared(lambda each: text.count(each.flips))),
                 ("mean logit SQNR", compared(lambda each: f"{each.sqnr:.1f} dB")),
                 ("file bytes", counted(lambda plan: text.count(plan.bytes))),
                 ("weight memory", counted(lambda plan: text.count(plan.footprint.weight_memory))),
                 ("activations, peak", counted(lambda plan: text.count(plan.footprint.activation_memory))),
                 ("  in one arena", counted(lambda plan: text.count(plan.footprint.arena))),
                 ("bit operations", counted(lambda plan: text.products(plan.footprint.bops))),
                 ("energy, on-chip", counted(lambda plan: text.energy(plan.energy)))]
        if self.engine:
            rows.append((f"time in {self.engine}", counted(
                lambda plan: "–" if plan.latency is None else text.milliseconds(plan.latency))))
        return rows

    def page(self, x: str = "bytes", y: str = "sqnr") -> str:
        """One HTML document with the table and the picture; no script, nothing from elsewhere."""
        environment = Environment(loader=PackageLoader("fewbits.report", ""), autoescape=True,
                                  undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return environment.get_template("plans_page.html.j2").render(c=self, picture=self.picture(x, y).svg)

    def __str__(self) -> str:
        stream = StringIO()
        self.render(Console(file=stream, width=40 + 20 * len(self.plans)))
        return stream.getvalue().rstrip()


def quantity(name: str) -> Quantity:
    """What a picture's axis may be called. Raises OptionError for another name."""
    if name not in QUANTITIES:
        raise OptionError(f"no figure of plans is called {name!r}: choose one of {', '.join(QUANTITIES)}")
    return QUANTITIES[name]


def unique_names(names: Sequence[str]) -> list[str]:
    """Names of plans, those that occur again with a number behind."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found



"""The findings in the terminal: the headline, then what a person looks at first when a figure is bad."""

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fewbits.report import text
from fewbits.report.findings import Findings

_WORST = 5


def render(findings: Findings, console: Console, verbose: bool = True) -> None:
    """Prints the headline; in few words what the codes say, which tensor is weakest and what equality relies on, or,
    verbose, tables of the engines, the weakest tensors and the widest sums."""
    title = f"{findings.model}: recipe {findings.recipe}, profile {findings.ledger.profile}"
    console.print(Text(title, "bold"))
    console.print(_headline(findings, verbose))
    if verbose:
        for part in (_engines(findings), _sites(findings), _sums(findings)):
            console.print(part)
    console.print("\n".join(_words(findings) if verbose else _few_words(findings)), markup=False, highlight=False)


def _table(title: str, *columns: str) -> Table:
    """The first column holds names, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _headline(findings: Findings, verbose: bool) -> RenderableType:
    table = _table("", "", "float", "integers", "change")
    table.title, table.box, table.pad_edge = None, None, False  # 80 columns hold it
    seen = findings.comparison
    if seen is not None:
        table.add_row(f"accuracy of {text.count(seen.samples)} images",
                      text.percent(seen.float_accuracy.mean), text.percent(seen.accuracy.mean),
                      f"{text.points(seen.difference)} points")
        low, high = seen.accuracy.interval
        table.add_row("  95 % interval", _interval(*seen.float_accuracy.interval), _interval(low, high),
                      " to ".join(text.points(x) for x in seen.interval))
        table.add_row("predictions changed", "", text.count(seen.flips),
                      f"{seen.lost} lost, {seen.gained} gained")
        table.add_row("mean logit SQNR", "", f"{seen.sqnr:.1f} dB", "")
    table.add_row("bytes", text.count(findings.float_bytes), text.count(findings.bytes),
                  text.percent(findings.bytes / findings.float_bytes, 1))
    if time := findings.latency:
        table.add_row(f"time, batch {time.batch}, onnxruntime", text.milliseconds(time.float_ms),
                      text.milliseconds(time.ms), f"{time.speedup:.2f}{text.TIMES}")
        fastest = min(time.others, key=lambda name: time.others[name], default="")
        for name, ms in time.others.items():
            if not verbose and name != fastest:
                continue
            table.add_row(f"  integers in {name}", "", text.milliseconds(ms), f"{time.float_ms / ms:.2f}{text.TIMES}")
    for estimate in findings.energy:
        table.add_row(f"energy, {estimate.memory}", text.energy(estimate.original.total),
                      text.energy(estimate.integers.total), text.factor(estimate.ratio))
    style = "green" if findings.mismatches == 0 else "bold red"
    table.add_row("codes compared", "", text.count(findings.compared_codes),
                  Text(f"{text.count(findings.mismatches)} differ", style=style))
    return table


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.2f} to {text.percent(high)}"


def _engines(findings: Findings) -> RenderableType:
    table = _table("Codes against the reference", "engine", "at", "compared", "differing", "largest, steps")
    for engine in findings.engines:
        style = "" if not engine.differing else "red" if engine.exact else "yellow"
        note = "" if engine.exact else " (differences expected)"
        table.add_row(engine.name + note, engine.values, text.count(engine.compared),
                      Text(text.count(engine.differing), style=style), text.steps(engine.largest))
    return table


def _sites(findings: Findings) -> RenderableType:
    worst = sorted(findings.sites, key=lambda site: site.sqnr)[:_WORST]
    table = _table(f"Weakest {len(worst)} of {len(findings.sites)} sites", "tensor", "kind", "SQNR, dB")
    for site in worst:
        table.add_row(escape(site.site), site.kind, f"{site.sqnr:.1f}")
    return table


def _sums(findings: Findings) -> RenderableType:
    sums = findings.ledger.accumulations
    widest = sorted(sums, key=lambda entry: -entry.bits)[:_WORST]
    table = _table(f"Widest {len(widest)} of {len(sums)} sums", "node", "weights", "bits needed",
                   "bits there", "products per image")
    for entry in widest:
        table.add_row(escape(entry.node), entry.weights or entry.op, str(entry.bits), str(entry.available),
                      text.products(entry.macs))
    return table


def _words(findings: Findings) -> list[str]:
    lines = [f"Ledger: {findings.ledger}.",
             f"Float simulation, fed the Program's own codes node by node: {findings.gap}.", *_exactness(findings)]
    lines += [text.inside(findings.inside)] if findings.inside else []
    lines += [f"Equality relies on {reliance.on}." for reliance in findings.ledger.reliances if not reliance.nodes]
    lines.append("Energy is an estimate: " + "; ".join((*findings.energy[0].counted,
                 *findings.energy[0].integers.assumptions[::2])) + ".")
    return lines


def _few_words(findings: Findings) -> list[str]:
    weakest = min(findings.sites, key=lambda site: site.sqnr, default=None)
    site = [] if weakest is None else [f"Weakest tensor: {weakest.site}, {weakest.sqnr:.1f} dB."]
    return [*_exactness(findings), *site, "More: --verbose, or report.html."]


def _exactness(findings: Findings) -> list[str]:
    if findings.exactness is None:
        return []
    return [f"In ONNX Runtime, written for processor {findings.exactness.target!r}: {findings.exactness}."]

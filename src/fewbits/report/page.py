"""The findings as one HTML page that needs nothing else: no script, no network, light or dark."""

from collections import Counter
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from fewbits.quant.plan import Treatment
from fewbits.report import text
from fewbits.report.explain import Explanation
from fewbits.report.findings import Findings
from fewbits.report.ledger import InputTreatment
from fewbits.report.plots import linear_panel, log2_panel

_LOWEST_SCALE = 60.0  # dB; the bars end at the best tensor, or here
_OPENED = 3  # tensors whose histograms are open, the most harmful
_EXPLAINED: Mapping[Treatment | InputTreatment, str] = {
    InputTreatment.QUANTIZED: "rounded to codes once",
    InputTreatment.FLOAT: "read as it is by what computes in float",
    InputTreatment.ROWS: "numbers the rows of an embedding",
    InputTreatment.EXACT: "token numbers or a mask, carried as it is",
    Treatment.EXACT: "token numbers, positions or a mask: computed on integers and truth values, exactly",
    InputTreatment.UNREAD: "read by nothing",
    Treatment.INTEGER: "computes on codes",
    Treatment.DYNAMIC: "sums integers, its inputs quantized dynamically",
    Treatment.FLOAT: "computes in float32, because the recipe leaves it or what it reads so",
    Treatment.FUSED: "a ReLU, a clamp or a batch norm, done by the node before it",
    Treatment.PASSED: "moves codes or picks among them; nothing is computed",
    Treatment.GONE: "does nothing when the model runs",
    Treatment.SIZE: "works on shapes, which the program knows",
}

Piece = tuple[int, int, str]
"""Of a stacked bar: number of its colour, bytes, name."""


def page(findings: Findings) -> str:
    """A whole HTML document."""
    best = max([_LOWEST_SCALE, *(site.sqnr for site in findings.sites)])
    parts, layers = _bytes_by_part(findings), _bytes_by_layer(findings)
    return _environment().get_template("page.html.j2").render(
        f=findings, scale=best, parts=parts, layers=layers, explained=_EXPLAINED, opened=_OPENED,
        heaviest=max((bytes for _, bytes, _ in layers), default=1) or 1,
        inside=text.inside(findings.inside), weakest=min(findings.sites, key=lambda site: site.sqnr),
        defined=min(engine.images for engine in findings.engines))


def _bytes_by_part(findings: Findings) -> list[Piece]:
    parts: Counter[str] = Counter()
    for item in findings.sizes:
        parts[item.part] += item.bytes
    return [(place, bytes, part) for place, (part, bytes) in enumerate(parts.most_common())]


def _bytes_by_layer(findings: Findings) -> list[tuple[str, int, list[Piece]]]:
    """Layers as they stand in the file, with their parts in the colours of the parts."""
    colours = {part: colour for colour, _, part in _bytes_by_part(findings)}
    layers: dict[str, list[Piece]] = {}
    for item in findings.sizes:
        layers.setdefault(item.layer, []).append((colours[item.part], item.bytes, item.part))
    return [(layer, sum(bytes for _, bytes, _ in pieces), sorted(pieces)) for layer, pieces in layers.items()]


def explanation_page(explanation: Explanation, title: str) -> str:
    """A whole HTML document of what each tensor's quantization does. title: of the network, and what was done to it."""
    return _environment().get_template("explanation_page.html.j2").render(
        e=explanation, title=title, opened=_OPENED)


def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("fewbits.report", ""), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=text.percent, points=text.points, count=text.count, size=text.size,
                               milliseconds=text.milliseconds, products=text.products, shape=text.shape,
                               steps=text.steps, energy=text.energy, factor=text.factor, linear=linear_panel,
                               log2=log2_panel, place=text.place)
    return environment

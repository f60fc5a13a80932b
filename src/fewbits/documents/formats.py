"""docs/formats.md, made from the code itself: `python -m fewbits.documents.formats > docs/formats.md`."""

import sys

import numpy as np

from fewbits.numerics import floats, rounding, tables
from fewbits.numerics.catalogue import CATALOGUE, Entry
from fewbits.numerics.datasheet import exact
from fewbits.numerics.energy import costs_45nm
from fewbits.numerics.formats import Int
from fewbits.ranges import compatibility, microscaling, scale


def document() -> str:
    """The whole page, Markdown."""
    parts = [
        "# Number formats",
        "Made from the code by `python -m fewbits.documents.formats > docs/formats.md`; a test fails when it "
        "is stale. `fewbits formats NAME` prints one format's data sheet, `--plot FILE.svg` its number line.",
        "An encoded number is scale · (value(code) − zero point). A recipe names a format wherever it says "
        "`format:`; its scale follows the conventions below.",
        "```yaml\nweights:     {format: nf4, block: [1, 64]}\nactivations: {format: e4m3}\n```",
        "## Names", _names(),
        "## All formats", *_families(),
        "## What a format cannot hold", _answers(),
        "## Rounding", _docstring(rounding),
        "## Floats", _docstring(floats),
        "## Tables", _first_paragraphs(tables.Levels.__doc__ or ""),
        "## Scales", _docstring(scale),
        "## Scales that are quantized themselves", _docstring(microscaling),
        "## Other tools", _tools(),
        "## Energy and area", _costs(),
    ]
    return "\n\n".join(parts) + "\n"


def _names() -> str:
    rows = [
        ("`int8`, `uint4`, `int8-narrow`", "two's complement, unsigned, without the lowest code; 1 to 16 bits"),
        ("`q4.4`, `uq0.8`, `q9.-1`", "fixed point: integer bits with the sign, bits behind the point"),
        ("`sm8`", "sign and magnitude, 2 to 16 bits"),
        ("`fp32`, `tf32`, `bf16`, `fp16`, `e8m0`", "floats with a name"),
        ("`[u]eEmM[-SPECIALS][-bBIAS][-UNDERFLOW][-sat\\|-nosat]`", "any other float; what is left out is usual"),
        ("`nf4`, `binary`, `ternary`, `hwgq2`", "tables with a name"),
        ("`pow2-B`, `log2-B`, `ulog2-B`, `logsqrt2-B`, `inq-B`, `linear-B`, `apot-B`, `uapot-B`", "tables of B bits"),
        ("`table(NUMBERS[;THRESHOLDS][;TIES])`", "any other table: `table(-1,0,1;-0.3,0.3;toward-zero)`"),
    ]
    return _table(("write", "for"), rows)


def _families() -> list[str]:
    parts: list[str] = []
    for family in dict.fromkeys(entry.family for entry in CATALOGUE):
        rows = [_row(entry) for entry in CATALOGUE if entry.family == family]
        parts += [f"### {family.capitalize()}", _table(("name", "bits", "numbers", "smallest above 0", "lowest",
                                                         "largest", "what it is"), rows)]
    return parts


def _row(entry: Entry) -> tuple[str, ...]:
    format = entry.format
    unit = 2.0**-format.fraction if isinstance(format, Int) and format.fraction is not None else 1.0
    values = format.values().astype(np.float64) * unit
    positive = values[values > 0]
    smallest = exact(positive[0]) if len(positive) else ""
    return (f"`{entry.name}`", str(format.bits), str(len(values)), smallest, exact(values[0]), exact(values[-1]),
            entry.about)


def _answers() -> str:
    rows = [
        ("integers, fixed point", "saturates", "saturates", "lowest code"),
        ("floats with infinities (`ieee`)", "largest (`sat`) or infinity (`nosat`)", "stays infinite", "NaN"),
        ("floats with NaN only (`fn`, `fnuz`)", "largest (`sat`) or NaN (`nosat`)", "as overflow", "NaN"),
        ("floats without either (`finite`)", "largest", "largest", "lowest number"),
        ("tables", "outer code", "outer code", "lowest code"),
    ]
    return (_table(("format", "beyond the range", "±infinity", "NaN"), rows) +
            "\n\nAn empty tensor has no codes. A scale that is 0, negative, NaN or infinite is refused; a subnormal "
            "one is used as it is. Data that calibrate an encoding must be finite.")


def _tools() -> str:
    return ("One tensor, in units of 1/128, through the scale and rounding rules of each; it has exact ties and an odd "
            "zero point. AIMET's offset is minus our zero point; TensorFlow's is no code.\n\n"
            + compatibility.truth_table() + "\n\n"
            + _table(("tool", "scale", "x over scale", "rounding", "zero point", "source"), [
                (each.name, each.scale, each.quotient, each.rounding.replace("_", "-"),
                 f"added {each.zero_point} rounding" if each.scale == "asymmetric" else "", each.source)
                for each in compatibility.TOOLS]))


def _costs() -> str:
    costs = costs_45nm()
    rows = [(cost.name, f"{cost.pJ[0]:g}", f"{cost.um2:g}", cost.origin) for cost in costs.operations.values()]
    rows += [(f"64 bits from {cost.name}", " to ".join(dict.fromkeys(f"{v:g}" for v in cost.pJ)), "", cost.origin)
             for cost in costs.access.values()]
    return f"{costs.process}. {costs.source}.\n\n" + _table(("operation", "pJ", "µm²", "printed in"), rows)


def _docstring(module) -> str:
    """A module's own words, without its first line's role as a title."""
    return (module.__doc__ or "").strip()


def _first_paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def _table(head: tuple[str, ...], rows) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


if __name__ == "__main__":
    sys.stdout.write(document())

"""The whole report: its figures, its page, its terminal."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from report_cases import Case
from rich.console import Console

from fewbits.engines.executable import Executable
from fewbits.errors import FileError
from fewbits.kernels import library
from fewbits.report.accuracy import compare, evaluate
from fewbits.report.report import Report, build

Labelled = list[tuple[torch.Tensor, torch.Tensor]]
VOID = {"meta", "link", "br", "hr", "img", "input"}


@pytest.fixture(scope="module")
def test_set(residual: Case) -> Labelled:
    """Inputs labelled as the float model sees them, but for the first of each batch."""
    with torch.no_grad():
        best = [residual.simulation.model(x).argmax(1) for x in residual.batches]
    return [(x, (y + (torch.arange(len(y)) == 0)) % 5) for x, y in zip(residual.batches, best, strict=True)]


@pytest.fixture(scope="module")
def report(residual: Case, test_set: Labelled) -> Report:
    return build(residual.program, residual.simulation, residual.batches, test=test_set,
                 model="<Residual> & co", recipe="w8a8")


class Strict(HTMLParser):
    """Raises when tags do not nest; collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag} | {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag} | {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_summary_has_the_demos_keys_and_true_figures(report: Report, residual: Case,
                                                         test_set: Labelled) -> None:
    summary = report.summary()
    assert list(summary) == ["float_accuracy", "accuracy", "samples", "flips", "float_bytes", "bytes",
                             "mismatches", "compared_codes", "weight_memory", "activation_memory", "bops",
                             "float_energy_pj", "energy_pj", "float_ms", "ms", "native_ms"]
    seen = compare(residual.simulation.model, Executable(residual.program), test_set)
    assert summary["samples"] == 32
    assert summary["float_accuracy"] == seen.float_accuracy.mean == 30 / 32
    assert summary["accuracy"] == evaluate(Executable(residual.program), test_set).mean
    assert summary["flips"] == seen.flips
    assert summary["mismatches"] == 0
    assert summary["compared_codes"] == sum(row.compared for row in report.engines if row.exact)
    assert summary["bytes"] == sum(item.bytes for item in report.sizes)


def test_a_simulation_can_be_evaluated_too(residual: Case, test_set: Labelled) -> None:
    assert evaluate(residual.simulation, test_set).samples == 32


def test_without_labels_there_is_no_accuracy_and_still_a_page(residual: Case) -> None:
    report = build(residual.program, residual.simulation, residual.batches, every_value=False,
                   sizes=[("conv1", "weight", 108), ("", "header", 52)])
    assert report.summary()["accuracy"] is None
    assert report.bytes == 160
    assert "no labelled images" in report.html()
    report.render(Console(file=io.StringIO()))


def test_json_holds_everything_in_plain_finite_values(report: Report) -> None:
    read = json.loads(report.to_json())
    assert read["summary"] == report.summary()
    assert len(read["ledger"]["operations"]) == len(report.ledger.operations)
    assert read["comparison"]["flips"] == report.summary()["flips"]


def test_the_page_is_whole_and_needs_nothing_else(report: Report) -> None:
    html = report.html()
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert not parser.seen & {"script", "link", "img", "iframe", "src", "href", "onload", "onclick"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html


def test_the_page_shows_the_figures_and_escapes_names(report: Report) -> None:
    html = report.html()
    assert "&lt;Residual&gt; &amp; co" in html
    assert "<Residual>" not in html
    assert "Verified: 0 of" in html
    for site in report.sites:
        assert f"{site.sqnr:.1f}" in html
    for entry in report.ledger.operations:
        assert entry.node in html


def test_the_page_is_saved_whole_or_not_at_all(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report.save(path)
    assert path.read_text(encoding="utf-8") == report.html()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(FileError, match="was not written"):
        report.save(tmp_path / "absent" / "report.html")


def test_the_terminal_shows_the_headline(report: Report) -> None:
    console = Console(file=io.StringIO(), width=200)
    report.render(console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for words in ("<Residual> & co", "93.75", "codes compared", "optimisation all", "exact on any x86-64",
                  "0 in float"):
        assert words in shown


def test_a_report_prints_on_one_line(report: Report) -> None:
    assert "\n" not in str(report)
    assert "0 of" in str(report)


def test_latency_counts_what_it_ran(report: Report) -> None:
    assert report.latency.batch == 1
    assert report.latency.rounds >= 5
    assert report.latency.float_ms > 0 < report.latency.ms
    assert set(report.latency.others) == {"torch"} | ({"native"} if library.native() else set())
    assert min(report.latency.others.values()) > 0

"""The page as a browser shows it: colours one can read, axis labels that do not touch, nothing fetched, nothing cut."""

import re
import shutil
import subprocess
from html import escape
from itertools import pairwise
from pathlib import Path

import pytest
from report_cases import Case

from fewbits.report.causes import Plot
from fewbits.report.explain import explain
from fewbits.report.page import explanation_page
from fewbits.report.plots import log2_panel
from fewbits.report.report import Report, build

TEXTS = ("ink", "soft", "good", "bad", "warn")
GROUNDS = ("ground", "card")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(residual: Case) -> Report:
    sizes = [("conv1", "codes", 700), ("conv1", "scales", 40), ("head", "codes", 90), ("", "hashes", 32)]
    return build(residual.program, residual.simulation, residual.batches, model="residual", recipe="w8a8", sizes=sizes,
                 explanation=explain(residual.simulation, residual.batches[:1]))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    linear = [c / 12.92 if (c := int(colour[i:i + 2], 16) / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for i in (1, 3, 5)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def palettes(html: str) -> dict[str, dict[str, str]]:
    found = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    assert len(found) == 2
    return {name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text)) for name, text in
            zip(("light", "dark"), found, strict=True)}


def test_contrast_is_known() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(report: Report, scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for what a graphic says."""
    colours = palettes(report.html())[scheme]
    for text in TEXTS:
        for ground in GROUNDS:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for text in ("good", "bad"):
        assert contrast(colours[text], colours[f"{text}-ground"]) >= 4.5
    assert contrast(colours["fill"], colours["card"]) >= 3


@pytest.mark.parametrize(("first", "last"), [(-3, 1), (-12, 0), (-13, -1), (-9, 3), (-30, 2), (-140, 5)])
def test_labels_of_the_log2_axis_do_not_touch(first: int, last: int) -> None:
    exponents = tuple(range(first, last))
    panel = log2_panel(Plot((0.0, 1.0), (1,), exponents, (5,) * len(exponents), 0, 0.0, 2.0 ** (last - 0.5),
                            2.0 ** (first + 1)))
    places = sorted(x for x, _ in panel.ticks)
    widest = max(6.5 * len(text) for _, text in panel.ticks)  # of a font of 10 units
    assert len(places) >= 2
    assert all(right - left >= min(widest, 36) for left, right in pairwise(places))
    assert all("^" not in text for _, text in panel.ticks)


def test_bytes_are_told_by_part_and_by_layer(report: Report) -> None:
    html = report.html()
    by_layer = html[html.index("By layer"):html.index("Every part of every layer")]
    for layer, bytes in (("conv1", 740), ("head", 90), ("the file itself", 32)):
        assert re.search(rf">{layer}</th><td class=\"n\">{bytes}</td>", by_layer)
    assert "codes 790" in html[html.index("By part"):html.index("By layer")]


def test_the_worst_tensors_are_open(report: Report) -> None:
    html = report.html()
    assert html.count("<details open>") == 3
    assert html.count("<figure class=\"plot\">") == 2 * len(report.explanation.sites)


def test_the_browser_is_told_to_fetch_nothing(report: Report) -> None:
    for html in (report.html(), explanation_page(report.explanation, "x")):
        assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in html.replace("&#39;", "'")


def test_boxes_that_scroll_can_be_reached_by_keyboard(report: Report) -> None:
    boxes = re.findall(r"<div class=\"scroll[^>]*>", report.html())
    assert len(boxes) >= 8
    for box in boxes:
        assert 'tabindex="0"' in box and 'role="region"' in box and "aria-label=" in box


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
def test_in_a_browser(report: Report, tmp_path: Path) -> None:
    """The page is no wider than a phone or a window, and the console stays empty. Frames stand for windows: without a
    screen a browser makes none narrower than 500."""
    page, frames = tmp_path / "report.html", tmp_path / "frames.html"
    report.save(page)
    inside = escape(page.read_text(), quote=True)
    windows = [f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{inside}"></iframe>'
               for width in (390, 1280)]
    frames.write_text(f"""<body>{''.join(windows)}<script>window.onload = () => {{ document.title =
        [...document.querySelectorAll('iframe')].map(f => f.contentDocument.documentElement.scrollWidth).join(' ')
        }}</script></body>""")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run([*command, frames.as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search("<title>(.*?)</title>", shown.stdout)
    assert found is not None, shown.stderr
    assert found[1] == "390 1280"
    assert "CONSOLE" not in shown.stderr

"""The page of a report in a browser, where Debian's chromium is there: nothing on its console, no request, text that
stands out from its ground in light and dark, everything that opens or scrolls reached by the keyboard."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
import torch
from torch import nn

import fewbits as fb

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here to look at the page with")

ASKED = """<script>
const linear = (v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
const light = (c) => { const [r, g, b] = c.map(linear);
  return .2126 * r + .7152 * g + .0722 * b; };
const parts = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const ground = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
  if (c.length === 3 || c[3] > .99) return c.slice(0, 3); } return [255, 255, 255]; };
const faint = [], stuck = [];
let texts = 0;
document.querySelectorAll("details").forEach(e => e.open = true);
for (const e of document.querySelectorAll("body *")) {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length) continue;
  if (["SCRIPT", "STYLE", "title"].includes(e.tagName)) continue;
  const style = getComputedStyle(e), size = parseFloat(style.fontSize);
  const a = light(parts(e.namespaceURI.includes("svg") ? style.fill : style.color).slice(0, 3)), b = light(ground(e));
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  texts += 1;
  if (ratio < (large ? 3 : 4.5)) faint.push([e.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
}
const reached = [...document.querySelectorAll("summary, input, a[href], [tabindex]")];
for (const e of document.querySelectorAll("body *"))
  if (e.scrollWidth > e.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)) reached.push(e);
for (const e of reached) {
  e.focus();
  if (document.activeElement !== e || e.tabIndex < 0) stuck.push(e.outerHTML.slice(0, 80));
}
const requests = performance.getEntriesByType("resource").length;
const told = {texts, faint, stuck, reached: reached.length, requests,
  dark: matchMedia("(prefers-color-scheme: dark)").matches};
const text = JSON.stringify(told).replaceAll("<", "&lt;");
document.body.insertAdjacentHTML("beforeend", "<pre id=told>" + text + "</pre>");
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    x = torch.randn(32, 1, 8, 8)
    model = fb.fold(fb.capture(net, x))
    sim = fb.calibrate(model, fb.plan(model, "w8a8"), [x])
    path = tmp_path_factory.mktemp("page") / "report.html"
    report = fb.report(fb.lower(sim), sim=sim, batches=[x], explanation=fb.explain(sim, [x]))
    report.save(path)
    return path.read_text(encoding="utf-8")


def looked_at(page: str, scheme: str, width: int, folder: Path) -> tuple[dict, list[str]]:
    """What the script finds, and what stands on the console."""
    allowed = "default-src 'none'; style-src 'unsafe-inline'"
    assert allowed in page  # by this alone nothing is ever requested; the script is the test's own
    asked = page.replace(allowed, f"{allowed}; script-src 'unsafe-inline'").replace("</body>", f"{ASKED}</body>")
    (folder / "report.html").write_text(asked, encoding="utf-8")
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
         f"--window-size={width},2000", "--enable-logging=stderr", *dark, "--dump-dom",
         (folder / "report.html").as_uri()],
        capture_output=True, text=True, timeout=300, check=True)
    told = json.loads(unescape(re.findall(r'<pre id="told">(.*?)</pre>', done.stdout)[0]))
    assert told["dark"] == (scheme == "dark")
    return told, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_keyboard_console_and_requests(page: str, scheme: str, width: int, tmp_path: Path) -> None:
    told, console = looked_at(page, scheme, width, tmp_path)
    assert told["texts"] > 100
    assert told["reached"] > 5
    assert (told["faint"], told["stuck"], told["requests"], console) == ([], [], 0, [])


def test_that_it_would_be_noticed(page: str, tmp_path: Path) -> None:
    """Words that hardly stand out, and a box that scrolls and cannot be reached."""
    box = '<div style="overflow-x:auto;width:9px" tabindex="-1"><b style="display:block;width:99px">wide</b></div>'
    told, _ = looked_at(page.replace("</main>", f'<p style="color:#999">hardly seen</p>{box}</main>'), "light", 1280,
                        tmp_path)
    assert "hardly seen" in [words for words, _ in told["faint"]]
    assert len(told["stuck"]) == 2  # found as what scrolls and as what has a tabindex

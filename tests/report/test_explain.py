"""Explanations: errors that were put in are found, at the right site and under the right cause."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import DataError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.numerics.encoding import Encoding
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.optimize.bias_correction import correct_biases
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.explain import explain
from fewbits.report.page import explanation_page
from fewbits.report.plots import WIDTH, linear_panel, log2_panel
from fewbits.report.report import build


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, bias=False), nn.ReLU(), nn.Flatten(),
                        nn.Linear(96, 4))
    batches = [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    model = fold(capture(net, batches[0][:2]))
    return calibrate(model, plan(model, "w8a8"), batches), batches


def scaled(simulation, site, factor):
    spoiled = simulation.copy()
    old = spoiled.quantizer(site).encoding
    spoiled.quantizer(site).encoding = Encoding(old.format, old.scale * np.float32(factor), old.zero_point, old.block)
    return spoiled


def test_every_site_is_there_and_shares_add_up(case):
    simulation, batches = case
    found = explain(simulation, batches)
    assert {site.site for site in found.sites} == {quantizer.site for quantizer in simulation.quantizers()}
    for site in found.sites:
        assert site.clipping + site.rounding == pytest.approx(1)
        assert 0 <= site.bias <= 1
        assert site.only > found.sqnr
        assert sum(site.plot.counts) == sum(site.plot.log2_counts) + site.plot.zeros
    assert json.loads(found.to_json())["sqnr"] == found.sqnr
    assert simulation.mode == "simulate"


@pytest.mark.parametrize("site", ["2.weight", "3"])
@pytest.mark.parametrize(("factor", "cause"), [(0.05, "clipping"), (20, "rounding")])
def test_a_spoiled_site_is_first_with_its_cause_and_healed(case, site, factor, cause):
    simulation, batches = case
    site = next(q.site for q in simulation.quantizers() if q.site in (site, "relu_1")) if site == "3" else site
    found = explain(scaled(simulation, site, factor), batches)
    worst = found.sites[0]
    assert worst.site == site
    assert getattr(worst, cause) > 0.9
    assert worst.without > found.sqnr + 6
    assert found.remedies[0].site == site
    assert found.remedies[0].gain > (6 if cause == "rounding" else 3)


def test_the_page_shows_every_site(case):
    simulation, batches = case
    found = explain(scaled(simulation, "2.weight", 0.05), batches)
    html = explanation_page(found, "<mine> & co")
    assert "&lt;mine&gt; &amp; co" in html and "<script" not in html and "http:" not in html and "https:" not in html
    assert html.count("<details") == len(found.sites) and html.count("<details open") == 3
    first, second = (html.index(f'mono">{site.site}<') for site in found.sites[:2])
    assert first < second
    for site in found.sites:
        bars = len(linear_panel(site.plot).bars) + len(log2_panel(site.plot).bars)
        row = html.split(f'<span class="mono">{site.site}<')[1].split("</details>")[0]
        assert row.count('class="reach"') == bars
        assert f"{site.without:.1f}" in row
        assert (", beyond the range" in row) is (site.site == "2.weight")
    model, program = "case", lower(simulation)
    whole = build(program, simulation, batches, model=model, explanation=found).html()
    assert whole.count("<details>") + whole.count("<details open>") == len(found.sites)
    assert "<details open>" not in build(program, simulation, batches, model=model).html()


def test_a_remedy_depends_on_what_is_there():
    def tried(activations):
        net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
        x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)) ** 3
        model = fold(capture(net, x))
        recipe = Recipe.model_validate({"version": 1, "weights": "float", "activations": activations})
        return explain(calibrate(model, plan(model, recipe), [x]), [x]).remedies[0]

    assert tried({"format": "uint3", "symmetric": False, "block": "tensor"}).what == "range mse for minmax"
    wider = tried({"format": "uint3", "symmetric": False, "block": "tensor", "range": "mse"})
    assert wider.what == "5 bits for 3" and wider.gain > 3
    none = tried({"format": "e4m3", "symmetric": True, "block": "tensor"})
    assert none.what.startswith("no remedy tried") and none.gain == 0


@pytest.mark.parametrize("recipe", [
    "kmeans-w4a8", "twn", "bwn", "bnn", "lsq-w2a2", "w8",
    {"weights": {"format": "e2m1", "symmetric": True, "block": [1, 4], "scale": "mx"},
     "activations": {"format": "e5m2", "symmetric": True, "block": "tensor"}}])
def test_every_kind_of_number_has_its_plots(recipe):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        net[2].weight.zero_()
        net[5].weight.abs_().neg_()
    x = torch.randn(8, 4, 6, 6)
    model = fold(capture(net, x))
    chosen = recipe if isinstance(recipe, str) else Recipe.model_validate({"version": 1, **recipe})
    found = explain(calibrate(model, plan(model, chosen), [x]), [x])
    html = explanation_page(found, "numbers")
    assert html.count("<details") == len(found.sites)
    assert "nan" not in html.split("</style>")[1]
    for site in found.sites:
        for panel in (linear_panel(site.plot), log2_panel(site.plot)):
            assert panel.start < panel.end
            assert all(0 <= bar.x <= bar.x + bar.width <= WIDTH + 1e-6 for bar in panel.bars)


def test_after_repairs(case):
    simulation, batches = case
    repaired = correct_biases(adaround(simulation, batches, schedule=Schedule(iterations=20, rows=64)), batches)
    found = explain(repaired, batches)
    assert len(found.sites) == len(list(repaired.quantizers()))
    assert all(np.isfinite(site.only) for site in found.sites)


def test_what_cannot_be(case):
    simulation, batches = case
    with pytest.raises(DataError, match="one-shot"):
        explain(simulation, iter(batches))
    with pytest.raises(DataError, match="no batches"):
        explain(simulation, [])

"""Ranges that cut off more than they gain are said, site by site; sound ones are not."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import ClippingWarning
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.clipping import clipped
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe

SPIKED = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0)).relu()
BATCHES = torch.randn(4, 64, 16, generator=torch.Generator().manual_seed(1))


def calibrated(rule, batches, weights="minmax"):
    net = nn.Linear(16, 16, bias=False).eval()
    net.weight.data = torch.eye(16)
    model = fold(capture(net, batches[0][:2]))
    recipe = Recipe.model_validate({
        "version": 1, "weights": {"format": "int8", "symmetric": True, "block": "channel", "range": weights},
        "activations": {"format": "uint8", "symmetric": False, "block": "tensor", "range": rule}})
    return calibrate(model, plan(model, recipe), batches)


@pytest.mark.parametrize(("rule", "batches"), [
    ("kl(slides)", [SPIKED]), ("moving_average(0.9)", [torch.zeros(64, 16), *BATCHES]), ("percentile(60)", [SPIKED])])
def test_a_range_that_loses_is_named_with_its_site(rule, batches):
    with pytest.warns(ClippingWarning, match=r"'input' \(.*, \d+\.\d dB\).*minmax or mse"):
        calibrated(rule, batches)


@pytest.mark.parametrize(("rule", "batches"), [
    ("minmax", [SPIKED]), ("mse", [SPIKED]), ("kl", [SPIKED]), ("kl(nvidia)", [SPIKED]),
    ("moving_average(0.9)", list(BATCHES)), ("mse", [torch.zeros(64, 16), *BATCHES])])
def test_a_sound_range_is_no_news(rule, batches):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ClippingWarning)
        calibrated(rule, batches)


def test_the_decibels_are_those_of_the_values_themselves():
    with pytest.warns(ClippingWarning):
        sim = calibrated("kl(slides)", [SPIKED])
    x, whole = SPIKED.double().numpy(), calibrated("minmax", [SPIKED])
    errors = [np.square(s.quantizer("input").encoding.encode(x).dequantize() - x).sum() for s in (sim, whole)]
    found = clipped(sim.quantizer("input"))
    assert found is not None
    assert found.decibels == pytest.approx(10 * np.log10(errors[0] / errors[1]), abs=0.1)


def test_weights_are_looked_at_block_by_block():
    torch.manual_seed(0)
    net = nn.Linear(512, 4).eval()
    model = fold(capture(net, torch.randn(2, 512)))
    recipe = Recipe.model_validate({
        "version": 1, "weights": {"format": "int8", "symmetric": True, "block": "channel", "range": "percentile(80)"},
        "activations": "float"})
    with pytest.warns(ClippingWarning, match="'weight'"):
        sim = calibrate(model, plan(model, recipe))
    largest = net.weight.detach().abs().amax(1).numpy()[:, None]
    assert (sim.quantizer("weight").encoding.scale * 127 < 0.85 * largest).all()

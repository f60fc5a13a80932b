"""Advice where a network came out far from the float one: three lines that name what really costs most."""

import torch
from torch import nn

import fewbits as fb
from fewbits.quant.recipe import Recipe
from fewbits.report.accuracy import compare
from fewbits.report.advice import advice, explained, is_far

X = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
                         nn.Linear(128, 5)).eval()


def quantized(rules=()):
    recipe = Recipe.model_validate({
        "version": 1, "weights": {"format": "int8", "block": "channel"},
        "activations": {"format": "uint8", "symmetric": False}, "rules": rules})
    model = fb.fold(fb.capture(network(), X[:2]))
    return fb.calibrate(model, fb.plan(model, recipe), [X])


def test_the_tensor_made_coarse_is_named_first_with_what_it_costs():
    sim = quantized([{"module": "2", "weights": {"format": "int2"}}])
    found = explained(sim, [X])
    lines = advice(found, sim)
    assert len(lines) == 3
    assert lines[0].startswith("2.weight (weight) costs ")
    with torch.no_grad():
        truth, got, healed = network()(X), sim(X), quantized()(X)
    before, after = (float(10 * torch.log10(truth.square().sum() / (truth - y).square().sum())) for y in (got, healed))
    cost = float(lines[0].split("costs ")[1].split(" dB")[0])
    assert abs(cost - (after - before)) < 1.5
    assert ": " in lines[0]


def test_when_advice_is_due():
    labels = torch.zeros(64, dtype=torch.int64)
    good, bad = quantized(), quantized([{"module": "2", "weights": {"format": "int2"}}])
    for sim, due in ((good, False), (bad, True)):
        seen = compare(network(), sim, [(X, labels)])
        assert is_far(seen, seen.sqnr) is due
        assert is_far(None, seen.sqnr) is due


def test_a_cause_gets_its_mend():
    """Weights per tensor: the block is named, where no other range gains."""
    sim = quantized([{"op": "linear", "weights": {"format": "int2", "block": "tensor", "range": "mse"}}])
    line = next(line for line in advice(explained(sim, [X]), sim) if line.startswith("5.weight"))
    assert "gains" in line or "block: channel" in line

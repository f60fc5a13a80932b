"""KL thresholds: golden values, and an independent slow implementation on random histograms."""

import math

import numpy as np
import pytest
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.formats import parse
from fewbits.ranges import kl
from fewbits.ranges.kl import KlRule, divergence, divergences, spread, threshold
from fewbits.ranges.rule import MinMaxRule, Target
from fewbits.ranges.scale import encoding_for

BINS = np.arange(2048)
HISTOGRAMS = {
    "half_gaussian_sigma200_plus_outliers": np.floor(1e5 * np.exp(-0.5 * ((BINS + 0.5) / 200) ** 2) + 0.5),
    "laplace_scale150": np.floor(1e5 * np.exp(-(BINS + 0.5) / 150) + 0.5),
    "uniform_ones": np.ones(2048)}
HISTOGRAMS["half_gaussian_sigma200_plus_outliers"][[1200, 1500, 2047]] += [40, 10, 1]


def test_the_example_on_the_slides(golden):
    example = golden("tensorrt_kl")["slide_example"]
    p = np.array(example["P"])
    assert spread(p, example["levels"]).tolist() == example["Q"]
    assert divergence(p, 8, example["levels"]) == pytest.approx(example["KL"], rel=1e-6)


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_golden(golden, name):
    wanted, counts = golden("tensorrt_kl")[name], HISTOGRAMS[name]
    assert counts.sum() == wanted["total"]
    assert counts[:10].tolist() == wanted["first10"]
    slides, nvidia = threshold(counts, 128), threshold(counts, 128, "nvidia")
    assert slides.bins == wanted["slides"]["m"]
    assert slides.reach == wanted["slides"]["threshold_in_bins"]
    assert slides.divergence == pytest.approx(wanted["slides"]["kl"], rel=1e-6)
    assert slides.reach / 127 == pytest.approx(wanted["slides"]["scale_in_bins"], rel=1e-6)
    assert nvidia.bins == wanted["nvidia_pytorch_quantization"]["i"]
    assert nvidia.reach == wanted["nvidia_pytorch_quantization"]["amax_in_bins"]
    assert nvidia.divergence == pytest.approx(wanted["nvidia_pytorch_quantization"]["kl"], rel=1e-6, abs=1e-15)
    fast = divergences(counts, 128)
    for m, value in wanted["kl_at"].items():
        assert divergence(counts, int(m), 128) == pytest.approx(float(value), rel=1e-6)
        assert fast[int(m)] == pytest.approx(float(value), rel=1e-6)


def slow_divergence(counts, m, levels, fix_first):
    """Word by word from the slides, one bin at a time."""
    bins = list(counts)
    if fix_first:
        bins[0] = bins[1]
    p = bins[:m]
    p[m - 1] += sum(bins[m:])
    q = [0.0] * m
    for level in range(levels):
        members = [j for j in range(m) if math.floor(j * levels / m) == level]
        filled = [j for j in members if bins[j] > 0]
        for j in filled:
            q[j] = sum(bins[i] for i in members) / len(filled)
    if sum(q) == 0:
        return math.inf
    total = 0.0
    for a, b in zip(p, q, strict=True):
        if a > 0 and b == 0:
            return math.inf
        if a > 0:
            total += a / sum(p) * math.log(a / sum(p) / (b / sum(q)))
    return total


@pytest.mark.parametrize("seed", range(12))
def test_against_a_slow_implementation(seed):
    rng = np.random.default_rng(seed)
    size, levels = int(rng.integers(5, 60)), int(rng.choice([2, 4, 8]))
    counts = np.floor(rng.exponential(30, size) * np.exp(-np.arange(size) / rng.uniform(5, 50)))
    counts[rng.random(size) < 0.3] = 0
    counts[-1] += 1
    for variant, last in (("slides", size - 1), ("nvidia", size)):
        slow = {m: slow_divergence(counts, m, levels, variant == "nvidia") for m in range(levels, last + 1)}
        fast = divergences(counts, levels, variant)
        assert list(fast) == list(slow)
        for m, value in slow.items():
            assert fast[m] == pytest.approx(value, rel=1e-9, abs=1e-12)
            assert divergence(counts, m, levels, variant) == pytest.approx(value, rel=1e-9, abs=1e-12)
        found = threshold(counts, levels, variant)
        if min(slow.values()) < math.inf:
            assert slow[found.bins] == pytest.approx(min(slow.values()), abs=1e-12)


@pytest.mark.parametrize("variant", ["slides", "nvidia"])
def test_of_equal_candidates_slides_take_the_first_and_nvidia_the_last(variant):
    counts = np.array([4.0, 4, 0, 0, 0, 0, 0, 0])  # every candidate describes it perfectly
    assert threshold(counts, 2, variant).bins == (2 if variant == "slides" else 8)


@pytest.mark.parametrize("bits", [2, 4, 8, 11, 16])
@pytest.mark.parametrize("kind", ["symmetric int", "asymmetric uint", "one-sided uint"])
def test_the_rule_at_every_width(bits, kind):
    x = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    x = x.relu() if kind == "one-sided uint" else x
    target = Target(parse(f"{'int' if kind == 'symmetric int' else 'uint'}{bits}"), kind == "symmetric int")
    for rule in (KlRule(), KlRule("nvidia")):
        observer = rule.observer(TENSOR)
        observer.update(x)
        low, high = rule.range(observer, target)
        assert x.min() <= low <= 0 < high <= x.max()


def test_refused_per_channel():
    with pytest.raises(EncodingError, match="no meaning"):
        KlRule().check(CHANNEL)


def spiked(kind):
    """Data of which one value is much more frequent than its neighbours."""
    x = torch.randn(60_000, generator=torch.Generator().manual_seed(0))
    return {"half zeros": x.relu(), "nearly all zeros": (x - 1.5).relu(),
            "a background": torch.where(torch.arange(len(x)) % 5 > 0, -0.42, torch.linspace(-0.42, 2.8, len(x))),
            "a spike in the middle": torch.where(torch.arange(len(x)) % 3 > 0, 0.3, x)}[kind]


@pytest.mark.parametrize("kind", ["half zeros", "nearly all zeros", "a background", "a spike in the middle"])
@pytest.mark.parametrize("text", ["int8", "uint8", "uint4"])
def test_the_bare_rule_is_never_far_behind_min_max(kind, text):
    """Its error is measured on the values, not on bins."""
    x, target = spiked(kind), Target(parse(text), text == "int8")
    errors = []
    for rule in (KlRule(), MinMaxRule()):
        observer = rule.observer(TENSOR)
        observer.update(x)
        grid = encoding_for(*rule.range(observer, target), target.format, target.symmetric)
        errors.append(np.square(grid.encode(x.double().numpy()).dequantize() - x.double().numpy()).mean())
    assert errors[0] <= 2.02 * errors[1]


def test_a_published_threshold_collapses_on_a_background_and_the_bare_rule_does_not():
    x, target = spiked("a background"), Target(parse("int8"), True)
    reach = {}
    for variant in ("slides", "nvidia", "guarded"):
        observer = KlRule(variant).observer(TENSOR)
        observer.update(x)
        reach[variant] = float(KlRule(variant).range(observer, target)[1])
    assert reach["slides"] < 1
    assert reach["nvidia"] < 1
    assert reach["guarded"] > 2


def test_where_the_published_threshold_is_sound_the_bare_rule_is_it():
    x = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    observer = KlRule().observer(TENSOR)
    observer.update(x)
    target = Target(parse("int8"), True)
    assert KlRule().range(observer, target) == KlRule("nvidia").range(observer, target)


@pytest.mark.parametrize(("format", "symmetric", "sides", "levels"), [
    ("int8", True, (-1, 1), 128), ("int8", False, (-1, 1), 128), ("uint8", False, (-1, 1), 128),
    ("uint8", False, (0, 1), 256), ("int8", False, (0, 1), 256), ("int8", False, (-1, 0), 256),
    ("int8", True, (0, 1), 128), ("uint8", True, (0, 1), 256), ("int4", True, (-1, 1), 8),
    ("uint4", False, (0, 1), 16)])
@pytest.mark.parametrize("variant", ["guarded", "slides", "nvidia"])
def test_as_many_levels_as_magnitudes_have_codes(monkeypatch, format, symmetric, sides, levels, variant):
    """Half of the codes for data on both sides of 0; all of them on one side, unless the format is symmetric and
    signed, which has as many below 0."""
    low, high = sides
    x = torch.rand(5000, generator=torch.Generator().manual_seed(0)) * (high - low) + low
    asked, plain = [], kl.threshold
    monkeypatch.setattr(kl, "threshold", lambda counts, levels, *more: (asked.append(levels), plain(counts, levels,
                                                                                                   *more))[1])
    rule = KlRule(variant)
    observer = rule.observer(TENSOR)
    observer.update(x)
    rule.range(observer, Target(parse(format), symmetric))
    assert set(asked) == {levels}

"""Range rules: how they are written, and what they promise."""

import numpy as np
import pytest
import torch

from fewbits.errors import CalibrationError, EncodingError
from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.formats import parse
from fewbits.quant.spec import Spec
from fewbits.ranges.histogram import Histogram
from fewbits.ranges.isotone import IsotoneRule
from fewbits.ranges.moving_average import MovingAverageRule
from fewbits.ranges.mse import MseRule, error_on_grids
from fewbits.ranges.percentile import PercentileRule
from fewbits.ranges.registry import RANGE_RULES, parse_rule
from fewbits.ranges.rule import Target
from fewbits.ranges.scale import encoding_for

WIDTHS = [2, 3, 4, 8, 11, 16]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def range_of(rule, x, format="int8", symmetric=True, block=TENSOR):
    observer = rule.observer(block)
    for part in x if isinstance(x, list) else [x]:
        observer.update(part)
    return rule.range(observer, Target(parse(format), symmetric))


@pytest.mark.parametrize(("text", "rule"), [
    ("percentile(99.9)", PercentileRule(99.9)), ("percentile", PercentileRule(99.99)), (" mse ", MseRule()),
    ("moving_average( 0.5 )", MovingAverageRule(0.5)), ("mse()", MseRule())])
def test_written_and_read(text, rule):
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


def test_every_rule_reads_back():
    for rule in RANGE_RULES.values():
        assert parse_rule(str(rule())) == rule()


@pytest.mark.parametrize("text", ["max", "percentile(99", "percentile(a)", "percentile(40)", "mse(1)", "kl(tensorrt)",
                                  "moving_average(1)", "percentile(99,98)", ""])
def test_what_is_no_rule_is_refused_in_one_sentence(text):
    with pytest.raises(EncodingError) as caught:
        parse_rule(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(("signed", "symmetric"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("text", ["minmax", "percentile(99)", "mse", "kl", "kl(nvidia)", "moving_average", "isotone"])
def test_every_rule_fits_a_grid_of_every_width(text, bits, signed, symmetric):
    spec = Spec(parse(f"{'' if signed else 'u'}int{bits}"), symmetric, TENSOR, text)
    observer = spec.observer()
    for seed in range(3):
        observer.update(noise(50, 40, seed=seed))
    encoding = spec.fit(observer)
    assert encoding.scale > 0


def root_error(x, low, high, format, symmetric):
    """Root of the mean squared error of what the grid of a range makes of x."""
    encoding = encoding_for(np.float64(low), np.float64(high), parse(format), symmetric)
    return float(np.sqrt(np.square(encoding.encode(x.numpy()).dequantize() - x.double().numpy()).mean()))


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize(("kind", "symmetric"), [("int", True), ("uint", False)])
def test_mse_is_the_best_share_but_for_the_bins(bits, kind, symmetric):
    """A number's distance to the grid changes by no more than the number does, and a bin's middle is at most half a bin
    away: so the root of the mean squared error may be a bin above that of the best share of all, tried on the values
    themselves; for an asymmetric grid, of the best that shrinks both ends together, which its search begins with."""
    x, format = noise(20_000) ** 3 + (0 if symmetric else 1), f"{kind}{bits}"
    observer = Histogram(TENSOR)
    observer.update(x)
    chosen = MseRule().range(observer, Target(parse(format), symmetric))
    low, high = float(x.min()), float(x.max())
    best = min(root_error(x, low * share, high * share, format, symmetric) for share in np.linspace(0.1, 1, 91))
    assert observer.blocks[0].width < 0.1 * best  # or nothing would be shown
    assert root_error(x, *chosen, format, symmetric) <= best + observer.blocks[0].width


@pytest.mark.parametrize(("format", "symmetric"), [("int8", True), ("uint8", False)])
def test_mse_at_8_bits_is_no_worse_than_minmax(format, symmetric):
    x = noise(20_000) ** 3 + (0 if symmetric else 1)
    chosen = range_of(MseRule(), x, format, symmetric)
    assert root_error(x, *chosen, format, symmetric) <= root_error(x, float(x.min()), float(x.max()), format, symmetric)


def test_mse_per_channel_is_mse_of_each_channel():
    x = noise(5, 300) * torch.tensor([1.0, 10, 0.1, 0, 3])[:, None]
    low, high = range_of(MseRule(), x, "int4", block=CHANNEL)
    assert low.shape == (5, 1)
    for channel in range(5):
        assert (low[channel, 0], high[channel, 0]) == range_of(MseRule(), x[channel], "int4")


def test_mse_at_16_bits_keeps_the_range():
    x = noise(5000)
    low, high = range_of(MseRule(), x, "int16")
    assert max(-low, high) >= 0.98 * float(x.abs().max())


def test_percentiles_of_known_data():
    x = torch.arange(1, 10_001).float()
    assert range_of(PercentileRule(99), x)[1] == pytest.approx(9900, abs=4)
    low, high = range_of(PercentileRule(99), x - 5000, "uint8", symmetric=False)
    assert (low, high) == (pytest.approx(-4900, abs=4), pytest.approx(4900, abs=4))
    assert range_of(PercentileRule(100), x) == (1, 10_000)


def test_too_few_values_for_a_percentile():
    with pytest.raises(CalibrationError, match="at least 10000"):
        range_of(PercentileRule(99.99), noise(9_999))
    range_of(PercentileRule(99.99), noise(10_000))
    with pytest.raises(CalibrationError, match="too few"):
        range_of(PercentileRule(99), noise(4, 99), block=CHANNEL)


def test_moving_average_by_hand():
    low, high = range_of(MovingAverageRule(0.75), [torch.tensor([0.0, 4]), torch.tensor([-4.0, 8])])
    assert (low, high) == (-1, 5)


def test_isotone_keeps_the_largest_value_the_largest():
    """Rows that differ by little at small values, and one row that stretches the range."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(500, 10, generator=generator)
    x[torch.arange(500), torch.randint(0, 10, (500,), generator=generator)] = 1.05
    x[0, 0] = 60.0
    spec = {text: Spec(parse("uint8"), False, TENSOR, text) for text in ("minmax", "isotone")}
    kept = {}
    for text, item in spec.items():
        observer = item.observer()
        observer.update(x)
        codes = item.fit(observer).encode(x.numpy()).codes
        ordered = np.sort(codes, axis=1)
        kept[text] = int(((codes.argmax(1) == x.argmax(1).numpy()) & (ordered[:, -1] > ordered[:, -2])).sum())
    assert kept["isotone"] >= 490 > kept["minmax"]


def test_isotone_and_kl_are_refused_per_channel():
    for text in ("isotone", "kl"):
        with pytest.raises(EncodingError, match="no meaning"):
            Spec(parse("int8"), True, CHANNEL, text)
    with pytest.raises(CalibrationError, match="at least two"):
        range_of(IsotoneRule(), noise(5))


def test_a_percentile_leaves_out_as_many_numbers_as_it_says():
    """Of 1000 numbers, at 99 percent 10 at each end, at 99.9 one: counted, not measured."""
    x = torch.cat([torch.arange(1, 501), -torch.arange(1, 501)]).float()
    real = x.numpy()
    for percent, outside in ((99.0, 10), (99.5, 5), (99.9, 1)):
        low, high = range_of(PercentileRule(percent), x, "uint8", symmetric=False)
        assert (int((real < low).sum()), int((real > high).sum())) == (outside, outside)
        low, high = range_of(PercentileRule(percent), x, "int8")
        assert int(((real < low) | (real > high)).sum()) == outside // 2 * 2, "every magnitude is there twice"


@pytest.mark.parametrize("share", [1.0, 0.6, 0.15])
@pytest.mark.parametrize("format", ["int16", "int12", "int8", "int4"])
def test_the_error_of_a_grid_is_that_of_rounding_every_number(format, share):
    """Grids finer than the histogram's bins, whose rounding error is taken as step²/12, and coarser ones; with clipping
    and without."""
    x = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    histogram = Histogram(TENSOR)
    histogram.update(x)
    scale = np.array([share / parse(format).high])
    real = x.double().numpy()
    codes = np.clip(np.rint(real / scale), parse(format).low, parse(format).high)
    exact = float(np.mean((codes * scale - real) ** 2))
    (got,) = error_on_grids(histogram.blocks[0], scale, np.zeros(1, np.int32), parse(format))
    assert got == pytest.approx(exact, rel=0.03)

"""The widening histogram: it is what one histogram over all the data would have been, however it came."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.errors import CalibrationError
from fewbits.numerics.block import CHANNEL, TENSOR, Block
from fewbits.ranges.histogram import Histogram
from fewbits.ranges.moving_average import MovingAverage
from fewbits.ranges.observer import MinMax
from fewbits.ranges.percentile import lower_percentile, magnitude_percentile, percentile

chunks = st.lists(st.lists(st.floats(-2.0**100, 2.0**100, width=32), min_size=1, max_size=20), min_size=1, max_size=6)
MAKE = {"minmax": lambda: MinMax(TENSOR), "histogram": lambda: Histogram(TENSOR, bins=64),
        "moving_average": lambda: MovingAverage(TENSOR, 0.9)}


def observed(make, batches):
    observer = make()
    for batch in batches:
        observer.update(torch.tensor(batch, dtype=torch.float32))
    return observer


def state(histogram):
    counts = histogram.blocks[0]
    return (counts.exponent, counts.index.tolist(), counts.count.tolist(), counts.low, counts.high)


@settings(max_examples=150)
@given(chunks, st.integers(0, 6))
def test_shards_merged_are_the_whole(batches, cut):
    for make in MAKE.values():
        whole, first, second = observed(make, batches), observed(make, batches[:cut]), observed(make, batches[cut:])
        first.merge(second)
        assert first.count == whole.count
        np.testing.assert_allclose(first.extremes(), whole.extremes(), rtol=1e-9)


@settings(max_examples=150)
@given(chunks, st.randoms(use_true_random=False))
def test_neither_order_nor_batches_matter_and_no_count_is_lost(batches, random):
    flat = [x for batch in batches for x in batch]
    shuffled = random.sample(flat, len(flat))
    one, other = observed(MAKE["histogram"], batches), observed(MAKE["histogram"], [[x] for x in shuffled])
    assert state(one) == state(other)
    assert one.blocks[0].total == len(flat)


@settings(max_examples=150)
@given(chunks, st.sampled_from([60, 75, 90, 99, 99.9, 100]))
def test_percentiles_are_within_the_stated_bound(batches, percent):
    data = np.sort(np.array([x for batch in batches for x in batch], np.float32).astype(float))
    counts = observed(MAKE["histogram"], batches).blocks[0]
    bound = max(2 * (data[-1] - data[0]) / (counts.bins - 1), np.abs(data).max() * 2.0**-29, 2.0**-149)
    assert counts.width <= bound
    rank = max(1, int(np.ceil(len(data) * percent / 100 - 1e-9)))
    assert 0 <= percentile(counts, percent) - data[rank - 1] <= counts.width
    assert 0 <= data[-rank] - lower_percentile(counts, percent) <= counts.width
    # A magnitude on a bin's edge may count to either side of it.
    magnitudes = np.sort(np.abs(data))
    assert -1e-12 <= magnitude_percentile(counts, percent) - magnitudes[rank - 1] <= 2 * counts.width


def test_memory_does_not_grow_with_the_data():
    histogram = Histogram(TENSOR, bins=256)
    generator = torch.Generator().manual_seed(0)
    for scale in (1, 1, 7, 100, 1e6, 1e-6):
        histogram.update(torch.randn(10_000, generator=generator) * scale)
        assert histogram.blocks[0].index.size <= 256
    assert histogram.blocks[0].total == 60_000


@pytest.mark.parametrize("block", [TENSOR, CHANNEL, Block((-1, 1)), Block((1, 2))])
def test_blocks_are_counted_apart(block):
    x = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 7).reshape(1, 6, 1)
    histogram, minmax = Histogram(block), MinMax(block)
    for part in (x, 2 * x):
        histogram.update(part)
        minmax.update(part)
    assert histogram.count == 2 * x.numel()
    assert sum(counts.total for counts in histogram.blocks) == 2 * x.numel()
    for got, wanted in zip(histogram.extremes(), minmax.extremes(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_observers_of_other_settings_do_not_merge():
    first, second = Histogram(TENSOR, 64), Histogram(TENSOR, 128)
    second.update(torch.ones(3))
    with pytest.raises(CalibrationError, match="other settings"):
        first.merge(second)


@pytest.mark.parametrize("count", [100, 997, 1000])
@pytest.mark.parametrize("percent", [50.5, 90, 99, 99.5, 99.9, 99.99, 100])
def test_percentiles_are_of_the_rank_that_the_definition_says(count, percent):
    """Of 1 … n the k-th smallest is k: one rank off is one off, and the bins are much narrower."""
    rank = max(1, math.ceil(Fraction(str(percent)) * count / 100))
    histogram = Histogram(TENSOR)
    histogram.update(torch.arange(1, count + 1).float())
    counts = histogram.blocks[0]
    assert counts.width < 0.5
    assert math.floor(percentile(counts, percent)) == rank
    assert math.ceil(lower_percentile(counts, percent)) == count + 1 - rank
    signs = Histogram(TENSOR)
    signs.update(torch.arange(1, count + 1).float() * torch.tensor([1.0, -1.0])[torch.arange(count) % 2])
    assert math.floor(magnitude_percentile(signs.blocks[0], percent)) == rank

"""Ranges that a few numbers stretch: what is told, and what is not."""

import pytest
import torch

from fewbits.quant.stretched import StretchWatch, stretched

RANDOM = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("numbers", "far"), [
    (torch.cat([torch.randn(100, generator=RANDOM), torch.full((3,), -1e4)]), -1e4),
    (torch.cat([torch.randn(100, generator=RANDOM), torch.randn(100, generator=RANDOM) - 1e9]), -1e9),
    (torch.cat([torch.randn(100, generator=RANDOM), torch.full((1,), 500.0)]), 500.0),
])
def test_what_is_far_away_is_found(numbers, far):
    found = stretched("x", numbers.double())
    assert found is not None and found.far == pytest.approx(far, rel=1e-3) and found.times > 50
    assert -5 < found.low < found.high < 5


@pytest.mark.parametrize("numbers", [
    torch.randn(1000, generator=RANDOM), torch.tensor([0.0, 1.0]).repeat(50), torch.randn(100, generator=RANDOM).exp(),
    torch.cat([torch.randn(100, generator=RANDOM), torch.full((3,), -40.0)]), torch.zeros(100),
    torch.cat([torch.tensor([0.0, 0.1, 0.2]), torch.tensor([1e4])]), torch.tensor([1.0, torch.inf] * 20)])
def test_what_a_range_is_for_is_not(numbers):
    assert stretched("x", numbers.double()) is None


def test_one_number_among_many_is_seen():
    x = torch.randn(100_000, generator=RANDOM)
    x[12_345] = -1e6
    watch = StretchWatch("x")
    watch.see(x)
    assert watch.found is not None and watch.found.far == -1e6

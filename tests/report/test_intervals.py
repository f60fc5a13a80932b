"""Intervals against scipy, and their promise against every possible outcome."""

import itertools
from math import comb, expm1, log, log1p

import numpy as np
import pytest

from fewbits.errors import DataError
from fewbits.report.intervals import clopper_pearson, paired_difference, sign_test

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("trials", [1, 2, 7, 50, 898, 10_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_clopper_pearson_is_scipys(trials: int, confidence: float) -> None:
    for successes in sorted({0, 1, trials // 3, trials - 1, trials}):
        expected = stats.binomtest(successes, trials).proportion_ci(confidence, "exact")
        found = clopper_pearson(successes, trials, confidence)
        assert found == pytest.approx(tuple(expected), rel=1e-9, abs=1e-13)  # scipy's own error is 1e-14


@pytest.mark.parametrize("trials", [2, 5, 10_000])
def test_one_success_and_none_have_closed_forms(trials: int) -> None:
    assert clopper_pearson(0, trials)[1] == pytest.approx(-expm1(log(0.025) / trials), rel=1e-12)
    assert clopper_pearson(1, trials)[0] == pytest.approx(-expm1(log1p(-0.025) / trials), rel=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_counts_that_do_not_fit_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(DataError, match="no interval"):
        clopper_pearson(successes, trials)


def test_more_changed_images_than_images_are_refused() -> None:
    with pytest.raises(DataError, match="more than the 3"):
        paired_difference(2, 2, 3)


@pytest.mark.parametrize("pairs", [1, 4, 9])
def test_the_paired_interval_holds_every_truth_at_least_95_percent_of_the_time(pairs: int) -> None:
    intervals = {(gained, lost): paired_difference(gained, lost, pairs)
                 for gained in range(pairs + 1) for lost in range(pairs + 1 - gained)}
    steps = [i / 10 for i in range(11)]
    for p_gained, p_lost in itertools.product(steps, steps):
        if p_gained + p_lost > 1 + 1e-9:
            continue
        p_same = max(0.0, 1 - p_gained - p_lost)
        covered = sum(
            comb(pairs, gained) * comb(pairs - gained, lost)
            * p_gained**gained * p_lost**lost * p_same**(pairs - gained - lost)
            for (gained, lost), (low, high) in intervals.items() if low <= p_gained - p_lost <= high)
        assert covered >= 0.95


def test_the_paired_interval_is_two_clopper_pearsons_by_brute_force() -> None:
    """Their limits found by searching a fine grid for probabilities that the exact test does not refuse."""
    def limits(successes: int, trials: int) -> tuple[float, float]:
        grid = np.linspace(0, 1, 20_001)
        kept = grid[(stats.binom.sf(successes - 1, trials, grid) > 0.0125)
                    & (stats.binom.cdf(successes, trials, grid) > 0.0125)]
        return kept[0], kept[-1]

    (gained_low, gained_high), (lost_low, lost_high) = limits(1, 12), limits(4, 12)
    assert paired_difference(1, 4, 12) == pytest.approx(
        (gained_low - lost_high, gained_high - lost_low), abs=1.1e-4)


def test_the_paired_interval_has_a_width_without_a_changed_image() -> None:
    low, high = paired_difference(0, 0, 898)
    assert -low == high == pytest.approx(1 - 0.0125 ** (1 / 898))


def test_the_paired_interval_turns_round_with_its_arguments() -> None:
    low, high = paired_difference(3, 8, 100)
    assert paired_difference(8, 3, 100) == (-high, -low)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 1), (3, 3), (1, 9), (40, 22)])
def test_the_sign_test_is_scipys(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert sign_test(gained, lost) == pytest.approx(expected)

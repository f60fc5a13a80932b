"""Exact intervals for counts, so that a figure on a few hundred images says how much it can mean.

Tails of the binomial distribution are summed term by term in log space; limits are found by bisection.
"""

from functools import lru_cache

import numpy as np

from fewbits.errors import DataError

Interval = tuple[float, float]


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The probabilities of success that a two-sided exact test does not refuse.

    successes: 0 to trials; confidence: of the interval, each side keeping half the rest. Returns (low, high)
    in [0, 1]; it holds the true probability at least `confidence` of the time, whatever that is. Raises
    DataError when the counts do not fit.
    Source: Clopper and Pearson 1934, Biometrika 26 (4), 404-413.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise DataError(f"there is no interval for {successes} of {trials}: count 1 or more trials")
    tail = (1 - confidence) / 2
    low = _lower_limit(successes, trials, tail)
    high = 1 - _lower_limit(trials - successes, trials, tail)
    return low, high


def paired_difference(gained: int, lost: int, pairs: int, confidence: float = 0.95) -> Interval:
    """Exact interval of P(gained) - P(lost), the difference of two accuracies measured on the same images.

    gained: images that only the second model gets right; lost: that only the first does; pairs: all images.
    Two Clopper-Pearson intervals, of the gained and of the lost share, each with half the error allowed
    (Bonferroni): low = low(gained) - high(lost), high = high(gained) - low(lost). It holds the true
    difference at least `confidence` of the time for every truth and every number of images. The
    narrower interval that conditions on gained + lost does not: without a discordant image it shrinks to 0.
    Raises DataError when the counts do not fit.
    Source: Clopper and Pearson 1934 (the marginals); Dunn 1961, JASA 56, 52-64 (simultaneous intervals).
    """
    if gained + lost > pairs:
        raise DataError(f"{gained} gained and {lost} lost images are more than the {pairs} there are")
    each = 1 - (1 - confidence) / 2
    gained_low, gained_high = clopper_pearson(gained, pairs, each)
    lost_low, lost_high = clopper_pearson(lost, pairs, each)
    return gained_low - lost_high, gained_high - lost_low


def sign_test(gained: int, lost: int) -> float:
    """Two-sided exact p-value of "as many are gained as lost", given how many images changed sides.

    Source: McNemar 1947, Psychometrika 12 (2), 153-157, in its exact binomial form.
    """
    changed = gained + lost
    return min(1.0, 2 * _upper_tail(max(gained, lost), changed, 0.5)) if changed else 1.0


def _lower_limit(successes: int, trials: int, tail: float) -> float:
    """The largest p, to the last bit, with P(X ≥ successes) ≤ tail for X ~ Binomial(trials, p)."""
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if _upper_tail(successes, trials, middle) > tail else (middle, high)
    return low


def _upper_tail(successes: int, trials: int, p: float) -> float:
    """P(X ≥ successes) for X ~ Binomial(trials, p), 0 < p < 1."""
    counts = np.arange(successes, trials + 1)
    logs = _log_choose(trials)[successes:] + counts * np.log(p) + (trials - counts) * np.log1p(-p)
    return float(np.exp(logs).sum())


@lru_cache(maxsize=4)
def _log_choose(trials: int) -> np.ndarray:
    """log(trials over k) for k = 0 ... trials: float64 [trials + 1].

    A running sum of log((trials - k + 1) / k), exact near the ends, where differences of lgamma are not.
    """
    k = np.arange(1, trials // 2 + 1)
    half = np.concatenate([[0.0], np.cumsum(np.log((trials - k + 1) / k))])
    return np.concatenate([half, half[:trials - trials // 2][::-1]])

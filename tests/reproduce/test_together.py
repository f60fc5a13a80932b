"""The difference over all seeds, and its interval by hand."""

import pytest

from fewbits.documents.reproductions import document
from fewbits.report.intervals import paired_difference
from fewbits.reproduce.row import RowResult, record
from fewbits.reproduce.together import together


def figures(gained: int, lost: int) -> dict:
    return {"float": 91.0, "few bits": 90.0, "program": 90.0, "program less float, gained": gained,
            "program less float, lost": lost, "test images": 500}


def test_mean_of_the_seeds() -> None:
    (what, points, (low, high)), = together([figures(10, 15), figures(12, 14), figures(5, 21)])
    assert what == "program less float"
    assert points == pytest.approx(100 * (27 - 50) / 1500)
    lows, highs = zip(*(paired_difference(*counts, 500) for counts in ((10, 15), (12, 14), (5, 21))), strict=True)
    assert (low, high) == pytest.approx((100 * sum(lows) / 3, 100 * sum(highs) / 3))
    assert low < points < high


def test_the_same_images_again_tell_no_more() -> None:
    """Three seeds that err on the same images are one."""
    (_, _, one), = together([figures(10, 15)])
    (_, _, three), = together([figures(10, 15)] * 3)
    assert three == pytest.approx(one)


def test_nothing_is_said_of_records_that_did_not_count() -> None:
    old = {"float": 91.0, "few bits": 90.0, "test images": 500}
    assert list(together([figures(1, 2), old])) == []
    assert list(together([old])) == []


def test_the_page_says_it(tmp_path) -> None:
    for seed, (gained, lost) in enumerate([(10, 15), (12, 14)]):
        record(tmp_path, "lsq-w4a4-resnet20", RowResult(seed, 2.5, "a machine", figures(gained, lost)))
    low, high = (50 * sum(ends) for ends in zip(paired_difference(10, 15, 500), paired_difference(12, 14, 500),
                                                 strict=True))
    page = document(tmp_path)
    assert f"| -1.00 | {low:+.2f} to {high:+.2f} | 2 |" in page
    assert (f"program less float: -0.70 points, 95 % interval {low:+.2f} to {high:+.2f}, mean of the seeds." in page)

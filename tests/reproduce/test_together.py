"""Images of all seeds together: the difference, and its interval by hand."""

import pytest

from fewbits.documents.reproductions import document
from fewbits.report.intervals import paired_difference
from fewbits.reproduce.row import RowResult, record
from fewbits.reproduce.together import together


def figures(gained: int, lost: int) -> dict:
    return {"float": 91.0, "few bits": 90.0, "program": 90.0, "program less float, gained": gained,
            "program less float, lost": lost, "test images": 500}


def test_counts_add_up() -> None:
    (what, points, (low, high)), = together([figures(10, 15), figures(12, 14), figures(5, 21)])
    assert what == "program less float"
    assert points == pytest.approx(100 * (27 - 50) / 1500)
    assert (low / 100, high / 100) == pytest.approx(paired_difference(27, 50, 1500))
    assert low < points < high


def test_nothing_is_said_of_records_that_did_not_count() -> None:
    old = {"float": 91.0, "few bits": 90.0, "test images": 500}
    assert list(together([figures(1, 2), old])) == []
    assert list(together([old])) == []


def test_the_page_says_it(tmp_path) -> None:
    for seed, (gained, lost) in enumerate([(10, 15), (12, 14)]):
        record(tmp_path, "lsq-w4a4-resnet20", RowResult(seed, 2.5, "a machine", figures(gained, lost)))
    low, high = (100 * end for end in paired_difference(22, 29, 1000))
    page = document(tmp_path)
    assert f"| -1.00 | {low:+.2f} to {high:+.2f} | 2 |" in page
    assert (f"program less float: -0.70 points, 95 % interval {low:+.2f} to {high:+.2f}, all seeds together." in page)

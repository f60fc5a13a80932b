"""Two runs that end at once: neither record is lost."""

import multiprocessing

import pytest

from fewbits.reproduce.row import RowResult, record, results


def write(folder, first):
    for seed in range(first, 40, 2):
        record(folder, "row", RowResult(seed, 1.0, "here", {"accuracy": seed}))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(tmp_path, first)) for first in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [one.seed for one in results(tmp_path, "row")] == list(range(40))

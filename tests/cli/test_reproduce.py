"""`fewbits reproduce`: the list, what a run prints, and its refusals."""

from dataclasses import replace

import pytest

from fewbits.cli import reproduce
from fewbits.reproduce.rows import ROWS


def test_the_list(fewbits, tmp_path) -> None:
    shown = fewbits("reproduce", "--list", "--records", tmp_path)
    assert shown.code == 0
    assert "times_smaller" in shown.out


def test_a_run_prints_tables_by_layer_and_by_part(fewbits, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "deep-compression-lenet-300-100"
    layer = {"weights": 1000, "density": 0.3, "pruned": 1000, "shared": 500, "coded": 400, "entropy": 300}
    measured = {"error": 1.5, "times_smaller_pruned": 4, "times_smaller_shared": 8, "times_smaller": 10, "bytes": 500,
                "layers": {"1.weight": layer}, "parts": {"codes": 450, "hashes": 50},
                "settings": {"network": "lenet_300_100"}}
    row = replace(ROWS[name], data_hint="digits", run=lambda given, log: measured)
    monkeypatch.setattr(reproduce, "ROWS", {name: row})
    shown = fewbits("reproduce", name, "--data", "digits")
    assert shown.code == 0, shown.err
    for told in ("12.50 (3.1)", "10.00 (2.32)", "90.0", "hashes", "1.58"):
        assert told in shown.out


def test_bad_input_is_one_sentence(fewbits) -> None:
    unknown = fewbits("reproduce", "deep-compression-lenet-6")
    assert unknown.code == 2
    assert next(iter(ROWS)) in unknown.err
    without = fewbits("reproduce", next(iter(ROWS)))
    assert without.code == 2
    assert "mnist:DIR" in without.err
    other = fewbits("reproduce", next(iter(ROWS)), "--data", "digits")
    assert other.code == 2
    assert "is of mnist, not of digits: give --data mnist:DIR" in other.err

"""Rows as data: what is typed, what is recorded, and a row run small."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.compress.share import Shared
from fewbits.data.normalize import MNIST
from fewbits.data.split import DataSet, Split
from fewbits.documents.reproductions import document
from fewbits.errors import DataError
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.presets import presets
from fewbits.quant.recipe import Recipe
from fewbits.reproduce.before_after import Format, Tuning, _error, _static, starts, tune
from fewbits.reproduce.deep_compression import Schedule, _stages, compress
from fewbits.reproduce.few_bits import Training, run
from fewbits.reproduce.row import Given, RowResult, listed, record, results
from fewbits.reproduce.rows import ROWS
from fewbits.tasks.few_bit_nets import mlp_norm
from fewbits.train.registry import trainable


def data(count: int) -> DataSet:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 10, (count,), generator=generator)
    x = torch.randint(0, 60, (count, 1, 28, 28), generator=generator).to(torch.uint8)
    x[torch.arange(count), 0, 2 * y + 3] = 250  # a bright line tells the class
    whole = Split(x, y)
    return DataSet("lines", whole.subset(range(count - 200)), whole.take(64), whole.subset(range(count - 200, count)),
                   10, MNIST)


def test_a_row_run_small() -> None:
    plan = Schedule("lenet_300_100", (0.05, 0.1, 0.3), (16, 16, 16), 0.02, 3, 6, 2, 1)
    measured = compress(plan, Given(data(6700), 0), lambda _: None)
    assert measured["error"] <= 2
    assert measured["times_smaller"] > 30
    assert measured["times_smaller"] > measured["times_smaller_shared"] > measured["times_smaller_pruned"]
    assert sum(measured["parts"].values()) == measured["bytes"]
    assert measured["layers"]["1.weight"]["density"] == pytest.approx(0.05, abs=1e-4)
    with pytest.raises(DataError, match="mnist:DIR"):
        compress(plan, Given(data(300), 0), lambda _: None)


def test_sizes_of_stages_are_the_papers_estimate(golden) -> None:
    """Evenly pruned, so that no gap needs a filler: as the golden estimate counts."""
    expected = golden("deep_compression_coding")["lenet_300_100_estimate"]
    bytes_in_all, codebooks = 0.0, 0
    for layer in expected["layers"].values():
        stored = round(layer["weights"] * layer["density"])
        positions = np.arange(stored) * layer["weights"] // stored
        codes, centroids = np.zeros(stored, np.uint8), np.arange(64, dtype=np.float32)[None]
        sizes = _stages(Shared((layer["weights"],), layer["weights"], positions, codes, centroids))
        bytes_in_all, codebooks = bytes_in_all + sizes["shared"], codebooks + 32 * centroids.size
        assert sizes["pruned"] == stored * (32 + expected["index_bits"]) / 8
    assert codebooks == expected["codebook_bits"]
    assert 8 * bytes_in_all == expected["pq_bits_no_fillers"]
    assert 32 * expected["weights"] / (8 * bytes_in_all) == pytest.approx(expected["ratio_no_fillers"], rel=1e-6)


def test_records_are_kept_by_seed(tmp_path: Path) -> None:
    one = RowResult(1, 2.5, "a machine", {"error": 1.5, "parts": {"codes": 3}})
    record(tmp_path, "row", one)
    record(tmp_path, "row", replace(one, seed=0))
    record(tmp_path, "row", replace(one, seconds=3.0))
    assert results(tmp_path, "row") == [replace(one, seed=0), replace(one, seconds=3.0)]
    assert results(tmp_path, "other") == []
    (tmp_path / "row.json").write_text("[3]")
    with pytest.raises(DataError, match="no record"):
        results(tmp_path, "row")


def test_rows_name_what_they_measure() -> None:
    assert all(name == row.name and row.source and row.data_hint for name, row in ROWS.items())


@pytest.mark.parametrize("recipe", ["lsq-w4a4", "twn"])
def test_a_training_run_small(recipe: str) -> None:
    training = Training(partial(mlp_norm, width=24), recipe, 1, 2)
    measured = run(training, Given(data(1200), 0), lambda _: None)
    assert measured["codes compared"] > 10_000
    assert measured["codes differing"] == 0
    assert min(measured[name] for name in ("float", "few bits", "program")) > 90
    assert run(training, Given(data(1200), 0), lambda _: None) == measured


def test_before_and_after_fine_tuning_and_resumed(tmp_path: Path) -> None:
    formats = (Format("4/4/4", "ristretto-dfp-w4a4"), Format("shared", "kmeans-w2a8"),
               Format("static", _static("q8.8"), False))
    tuning = Tuning(partial(mlp_norm, width=24), formats, MNIST, 1, epochs=1)
    given = Given(data(1200), 0, None, tmp_path, "row")
    measured = tune(tuning, given, lambda _: None)
    assert measured["codes differing"] == 0
    assert measured["codes compared"] > 10_000
    assert {f"{format.name}, {when}" for format in formats for when in ("before", "after")} < measured.keys()
    assert min(measured["float"], measured["4/4/4, after"], measured["static, after"]) > 90
    assert len(list(tmp_path.iterdir())) == 4, "one training in float, and one for each format"
    assert tune(tuning, given, lambda _: None) == measured, "the same from its checkpoints"
    assert tune(tuning, replace(given, work=None), lambda _: None) == measured, "and without any"


def test_starts_of_k_means() -> None:
    """The optimum's squared error is the least of all starts', at every number of bits, and the figure is the error."""
    tuning = Tuning(partial(mlp_norm, width=24), (), MNIST, 1, errors=True)
    measured = starts(tuning, Given(data(1200), 3), lambda _: None)
    assert measured["codes differing"] == 0
    errors = {start: [measured[f"{bits} bits, {start}, error before"] for bits in (4, 3, 2)]
              for start in ("optimal", "linear", "density", "random")}
    for start in ("linear", "density", "random"):
        assert all(best <= other for best, other in zip(errors["optimal"], errors[start], strict=True)), start
        assert errors[start] != errors["optimal"], f"{start} ends at the optimum by itself"
    assert all(a < b < c for a, b, c in errors.values())
    assert all(measured[f"2 bits, {start}, error after"] > 0 for start in errors)


def test_squared_error_of_weights() -> None:
    net = nn.Linear(4, 1, bias=False)
    net.weight.data = torch.tensor([[1.0, 3.0, 5.0, 5.0]])
    model = capture(net, torch.zeros(2, 4))
    two = Recipe.model_validate({"version": 1, "weights": {"format": "int8", "symmetric": True, "block": "tensor",
                                                           "method": "codebook(2)"}, "activations": "float"})
    simulation = trainable(calibrate(model, plan(model, two), [torch.zeros(2, 4)]))
    # 1 and 3 share a value of 2, which is rounded to whole 127ths of the largest, 5
    two_in_steps = round(2 / (5 / 127)) * 5 / 127
    expected = 100 * ((two_in_steps - 1) ** 2 + (3 - two_in_steps) ** 2) / (1 + 9 + 25 + 25)
    assert _error(simulation, model) == pytest.approx(expected, abs=1e-4)


def test_every_recipe_of_a_row_is_a_preset() -> None:
    assert {row.recipe for row in ROWS.values()} - {""} <= set(presets())


def test_the_page_of_reproductions_is_made_of_the_records() -> None:
    page = Path(__file__).parents[2] / "docs" / "reproductions.md"
    assert page.read_text() == document(), "run python -m fewbits.documents.reproductions > docs/reproductions.md"


def test_rows_as_json(tmp_path: Path) -> None:
    record(tmp_path, "bnn-mlp", RowResult(1, 2.5, "a machine", {"few bits": 98.5}))
    found = {entry["name"]: entry for entry in listed(ROWS.values(), tmp_path)}
    assert found["bnn-mlp"]["results"] == [{"seed": 1, "seconds": 2.5, "machine": "a machine",
                                            "measured": {"few bits": 98.5}, "processor_seconds": None, "note": ""}]
    assert found["bnn-mlp"]["recipe"] == "bnn"
    assert json.loads(json.dumps(found)) == found

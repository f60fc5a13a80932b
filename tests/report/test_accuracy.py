"""Accuracy and comparison on numbers small enough to work out by hand."""

from collections.abc import Callable
from math import log10
from typing import Any

import pytest
import torch
from torch import nn

from fewbits.errors import DataError
from fewbits.report.accuracy import compare, evaluate
from fewbits.report.intervals import clopper_pearson

LOGITS = torch.tensor([[3.0, 1, 0, 0, 0, 0], [0, 2, 1, 0, 0, 0], [0, 0, 0, 0, 0, 5], [6, 5, 4, 3, 2, 1]])
LABELS = torch.tensor([0, 2, 5, 5])


def looked_up(table: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A classifier whose inputs are row numbers."""
    return lambda rows: table[rows]


def batches(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rows = torch.arange(len(LABELS)).split(sizes)
    return [(row, LABELS[row]) for row in rows]


@pytest.mark.parametrize("sizes", [(4,), (1, 3), (2, 1, 1)])
def test_top1_counts_whatever_the_batches_are(sizes: tuple[int, ...]) -> None:
    accuracy = evaluate(looked_up(LOGITS), batches(*sizes))
    assert (accuracy.mean, accuracy.samples) == (0.5, 4)
    assert accuracy.interval == clopper_pearson(2, 4)


def test_top5_counts_labels_among_the_five_largest() -> None:
    assert evaluate(looked_up(LOGITS), batches(4), "top5").mean == 0.75


def test_a_metric_of_ones_own_gets_a_normal_interval() -> None:
    accuracy = evaluate(looked_up(LOGITS), batches(3, 1), lambda outputs, labels: outputs[:, 0])
    scores = LOGITS[:, 0].double()
    margin = 1.959964 * float(scores.std()) / 2
    assert accuracy.mean == pytest.approx(2.25)
    assert accuracy.interval == pytest.approx((2.25 - margin, 2.25 + margin))


def test_a_metric_of_zeros_and_ones_gets_the_exact_interval() -> None:
    accuracy = evaluate(looked_up(LOGITS), batches(4), lambda outputs, labels: (outputs[:, 0] > 0).float())
    assert accuracy.interval == clopper_pearson(2, 4)


@pytest.mark.parametrize("inputs", [(LOGITS, LOGITS), {"a": LOGITS, "b": LOGITS}])
def test_inputs_reach_the_model_by_position_or_name(inputs: Any) -> None:
    accuracy = evaluate(lambda a, b: a + b, [(inputs, LABELS)])
    assert accuracy.mean == 0.5


def test_batch_to_inputs_turns_what_stands_beside_the_labels() -> None:
    batches = [([LOGITS, "name"], LABELS)]
    assert evaluate(lambda x: x, batches, batch_to_inputs=lambda part: part[0]).mean == 0.5


def test_a_module_is_evaluated_and_put_back() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Sequential(nn.Dropout(0.9)))
    model[1].eval()
    assert evaluate(model, [(LOGITS, LABELS)]).mean == 0.5
    assert [part.training for part in model.modules()] == [True, True, False, False]


@pytest.mark.parametrize(("given", "says"), [
    ([], "at least one batch"),
    ([LOGITS], "batch 0 has no labels"),
    ([(LOGITS, None)], "batch 0 has no labels"),
    ([(LOGITS, LABELS), (LOGITS * torch.nan, LABELS)], "batch 1: the model returns NaN"),
    ([(LOGITS, LABELS + 1)], "labels go from 1 to 6, and the model has 6 classes"),
    ([(LOGITS, LABELS[:3])], "do not fit 4 rows"),
    ([(LOGITS, LABELS.float())], "one integer per image"),
    ([(LOGITS[0], LABELS)], r"needs logits \[N, classes\]"),
    ([("text", LABELS)], "batch_to_inputs"),
])
def test_bad_data_is_refused_in_one_sentence(given: list[Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        evaluate(lambda x: x, given)


def test_bad_metrics_are_refused() -> None:
    with pytest.raises(DataError, match="no metric is called 'top3'"):
        evaluate(lambda x: x, batches(4), "top3")
    with pytest.raises(DataError, match="top5 needs 5 classes"):
        evaluate(lambda x: x, [(torch.ones(1, 3), torch.tensor([0]))], "top5")
    with pytest.raises(DataError, match="one score per image"):
        evaluate(lambda x: x, batches(4), lambda outputs, labels: outputs.sum())
    with pytest.raises(DataError, match="metric returns NaN"):
        evaluate(lambda x: x, batches(4), lambda outputs, labels: outputs * torch.nan)
    with pytest.raises(DataError, match="at least two"):
        evaluate(lambda x: x.float(), [(torch.ones(1), LABELS[:1])], lambda outputs, labels: outputs * 0.5)


def test_comparison_counts_flips_losses_gains_and_decibels() -> None:
    quantized = LOGITS.clone()
    quantized[0] = torch.tensor([3.0, 4, 0, 0, 0, 0])   # right → wrong: error 3 of energy 10
    quantized[1] = torch.tensor([0.0, 2, 3, 0, 0, 0])   # wrong → right: error 2 of energy 5
    quantized[3] = torch.tensor([6.0, 7, 4, 3, 2, 1])   # wrong → wrong: error 2 of energy 91
    seen = compare(looked_up(LOGITS), looked_up(quantized), batches(3, 1))
    assert (seen.flips, seen.lost, seen.gained, seen.net_lost, seen.samples) == (3, 1, 1, 0, 4)
    assert (seen.float_accuracy.mean, seen.accuracy.mean, seen.difference) == (0.5, 0.5, 0.0)
    by_hand = [10 * log10(10 / 9), 10 * log10(5 / 4), 144.5, 10 * log10(91 / 4)]
    assert seen.sqnr == pytest.approx(sum(by_hand) / 4)
    assert seen.p_value == 1.0


def test_comparison_refuses_outputs_it_cannot_measure() -> None:
    with pytest.raises(DataError, match="hold Inf"):
        compare(looked_up(LOGITS), looked_up(LOGITS * torch.inf), [(torch.tensor([3]), LABELS[3:])])
    with pytest.raises(DataError, match="its own float original"):
        compare(looked_up(LOGITS), lambda rows: torch.ones(4, 7), batches(4))

"""Splits and their batch views: shapes, order, laziness, refusals."""

import numpy as np
import pytest
import torch

from fewbits.data.normalize import Normalize
from fewbits.data.split import DataSet, Split
from fewbits.errors import DataError

PLAIN = Normalize((0.0,), (1.0,), divide=1.0)


def counting(n: int) -> Split:
    """Example i is the number i, and so is its label."""
    return Split(torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1), torch.arange(n))


def test_views_cover_all_examples_in_order_as_often_as_asked() -> None:
    split = counting(10)
    inputs, batches = split.inputs(4, PLAIN), split.batches(4, PLAIN)
    assert len(inputs) == len(batches) == 3
    for _ in range(2):
        assert [x.flatten().tolist() for x in inputs] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert [y.tolist() for _, y in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(x.dtype == torch.float32 for x in inputs)


def test_a_generator_shuffles_anew_in_each_pass_and_the_seed_decides() -> None:
    def two_passes() -> list[list[int]]:
        batches = counting(50).batches(8, PLAIN, torch.Generator().manual_seed(3))
        return [[int(v) for x, y in batches for v in y if x.shape[0] == len(y)] for _ in range(2)]

    first, second = two_passes()
    assert first != second
    assert sorted(first) == sorted(second) == list(range(50))
    assert two_passes() == [first, second]


def test_inputs_and_labels_stay_together_when_shuffled() -> None:
    for x, y in counting(50).batches(8, PLAIN, torch.Generator().manual_seed(0)):
        assert torch.equal(x.flatten().long(), y)


def test_shuffling_leaves_the_global_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    list(counting(10).batches(4, PLAIN, torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_float_examples_are_taken_as_they_are() -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    split = Split(x)
    assert torch.equal(torch.cat(list(split.inputs(2))), x)
    assert torch.equal(torch.cat(list(split.inputs(2, PLAIN))), x)


def test_take_and_subset() -> None:
    split = counting(10)
    taken, chosen = split.take(3), split.subset([7, 2])
    assert taken.y is not None
    assert chosen.y is not None
    assert (len(taken), taken.y.tolist()) == (3, [0, 1, 2])
    assert (len(chosen), chosen.y.tolist(), chosen.x.flatten().tolist()) == (2, [7, 2], [7, 2])
    for n in (0, 11):
        with pytest.raises(DataError, match=f"Cannot take {n} of 10 examples; ask for 1 to 10"):
            split.take(n)
    for indices in ([10], [-1], []):
        with pytest.raises(DataError, match="takes indices from 0 to 9"):
            split.subset(indices)


def test_refuses_views_that_cannot_be() -> None:
    split = counting(4)
    with pytest.raises(DataError, match=r"bytes and nothing says how to normalise them; give mean and std"):
        split.inputs(2)
    with pytest.raises(DataError, match=r"A batch size of 0 holds nothing"):
        split.batches(0, PLAIN)
    with pytest.raises(DataError, match=r"no labels"):
        Split(split.x).batches(2, PLAIN)


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [
        ((5, 28, 28), (5, 1, 28, 28)),
        ((5, 32, 32, 3), (5, 3, 32, 32)),
        ((5, 3, 32, 32), (5, 3, 32, 32)),
        ((5, 3, 32, 3), (5, 3, 32, 3)),
        ((5, 7), (5, 7)),
    ],
)
def test_bytes_become_channels_first(shape: tuple[int, ...], becomes: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape)).astype(np.uint8).reshape(shape)
    split = Split.from_arrays(x, None, "x")
    assert split.x.shape == becomes
    if becomes == (5, 3, 32, 32) and shape != becomes:
        assert np.array_equal(split.x[:, 1].numpy(), x[..., 1])


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (np.zeros((2, 3), np.float64), None, r"here: examples are float64; save them as uint8 or float32"),
        (np.zeros((0, 3), np.uint8), None, r"here: examples have shape \[0, 3\]"),
        (np.zeros(3, np.uint8), None, r"here: examples have shape \[3\]"),
        (np.zeros((2, 3), np.uint8), np.zeros(2), r"here: labels are float64; save them as integers"),
        (np.zeros((2, 3), np.uint8), np.zeros(2, bool), r"here: labels are bool"),
        (np.zeros((2, 3), np.uint8), np.zeros(3, int), r"here: 2 examples but labels of shape \[3\]"),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 1), int), r"here: 2 examples but labels of shape \[2, 1\]"),
        (np.zeros((2, 3), np.uint8), np.array([0, -1]), r"here: labels go down to -1"),
    ],
)
def test_refuses_arrays_that_do_not_fit(x: np.ndarray, y: np.ndarray | None, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Split.from_arrays(x, y, "here")


def test_refuses_tensors_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"Examples must be uint8, float32 or int64.*convert float64 \[2, 3\]"):
        Split(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(DataError, match=r"Labels must be int64 \[2\], one per example, not int64 \[3\]"):
        Split(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))


def test_prints_on_one_line() -> None:
    assert repr(counting(4)) == "Split(x=uint8 [4, 1, 1, 1], y=int64 [4])"


def test_calibration_by_seed() -> None:
    train = counting(100)
    data = DataSet("counting", train, train.take(20), train)
    assert data.draw_calibration(0) is data.calibration
    one, again, other = (data.draw_calibration(seed).y for seed in (1, 1, 2))
    assert one is not None
    assert again is not None
    assert other is not None
    assert len(set(one.tolist())) == 20
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_labels_of_a_network_that_counts_the_background() -> None:
    split = Split(torch.zeros(3, 2), torch.tensor([0, 1, 2]))
    data = DataSet("a", train=split, calibration=Split(torch.zeros(1, 2)), test=split, classes=3)
    moved = data.relabelled(1)
    assert moved.test.y is not None and moved.test.y.tolist() == [1, 2, 3]
    assert moved.calibration.y is None and moved.classes == 4
    assert data.relabelled(0) is data and split.y is not None and split.y.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="label offset of -1 takes label 0 below 0"):
        data.relabelled(-1)

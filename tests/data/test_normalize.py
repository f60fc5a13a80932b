"""Normalisation: the formula, and the sentences of its refusals."""

import pytest
import torch

from fewbits.data.normalize import IMAGENET, SYMMETRIC, Normalize
from fewbits.errors import DataError


def test_follows_the_formula_per_channel() -> None:
    x = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).reshape(2, 3, 2, 2) * 10
    y = IMAGENET(x)
    assert y.dtype == torch.float32
    for c, (mean, std) in enumerate(zip(IMAGENET.mean, IMAGENET.std, strict=True)):
        torch.testing.assert_close(y[:, c], (x[:, c].float() / 255 - mean) / std)


def test_one_number_serves_all_channels_and_the_input_is_kept() -> None:
    x = torch.tensor([[0, 255]], dtype=torch.uint8).reshape(1, 2, 1, 1)
    assert SYMMETRIC(x).flatten().tolist() == [-1.0, 1.0]
    assert x.flatten().tolist() == [0, 255]


def test_parses_command_line_text() -> None:
    assert Normalize.parse("0.485, 0.456,0.406", "0.229,0.224,0.225") == IMAGENET
    assert Normalize.parse("1", "1", divide=127.5) == SYMMETRIC


@pytest.mark.parametrize(
    ("mean", "std", "divide", "sentence"),
    [
        ("0.5,oops", "1,1", 255.0, r"mean '0.5,oops' is not a list of numbers; write it as"),
        ("0.5", "", 255.0, r"std '' is not a list of numbers"),
        ("0.5,0.5", "1", 255.0, r"mean has 2 numbers and std 1; give one of each"),
        ("0.5", "0", 255.0, r"std and divide must be above zero"),
        ("0.5", "1", 0.0, r"std and divide must be above zero"),
        ("nan", "1", 255.0, r"must be finite"),
        ("0.5", "inf", 255.0, r"must be finite"),
    ],
)
def test_refuses_what_is_no_normalisation(mean: str, std: str, divide: float, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Normalize.parse(mean, std, divide)


def test_refuses_other_dtypes_and_channel_counts() -> None:
    with pytest.raises(DataError, match=r"Only uint8 data is normalised, not torch.float32"):
        IMAGENET(torch.zeros(1, 3, 2, 2))
    with pytest.raises(DataError, match=r"The data has 1 channels and mean and std have 3 numbers"):
        IMAGENET(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def test_one_colour_order_and_plain_numbers() -> None:
    given = Normalize.parse("1,2,3", "1,1,2", 1, bgr=True)
    assert given == Normalize((1, 2, 3), (1, 1, 2), 1, bgr=True)
    assert type(given.mean[0]) is type(given.divide) is float
    assert str(given) == "(byte / 1 - 1,2,3) / 1,1,2, blue first"
    x = torch.tensor([10, 20, 30], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert given(x).flatten().tolist() == [29.0, 18.0, 3.5]

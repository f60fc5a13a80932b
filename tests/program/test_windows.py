"""Margins of convolution windows, against what torch computes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from fewbits.program.windows import margins_of

SIZES = st.lists(st.integers(1, 4), min_size=2, max_size=2)


@given(SIZES, SIZES, st.sampled_from(("same", "valid", (1,), (0, 2))))
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_margins_pad_as_torch_does(kernel, dilation, padding) -> None:
    x = torch.randint(-8, 8, (1, 1, 13, 14)).double()
    weight = torch.randint(-8, 8, (1, 1, *kernel)).double()
    sides = [size for margin in reversed(margins_of(padding, kernel, dilation)) for size in margin]
    assert torch.equal(F.conv2d(F.pad(x, sides), weight, dilation=dilation),
                       F.conv2d(x, weight, padding=padding, dilation=dilation))


def test_same_padding_by_hand() -> None:
    assert margins_of("same", (3, 4), (1, 1)) == ((1, 1), (1, 2))  # 3 of 4 - 1: the odd one behind
    assert margins_of("same", (3, 2), (2, 3)) == ((2, 2), (1, 2))
    assert margins_of("valid", (3, 3, 3), (1, 1, 1)) == ((0, 0),) * 3
    assert margins_of([2], (3, 3), (1, 1)) == ((2, 2), (2, 2))
    assert margins_of((0, 2), (3, 3), (1, 1)) == ((0, 0), (2, 2))

"""Blocks: which elements share a scale, by an enumeration of every element, and what does not divide."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import EncodingError
from fewbits.numerics.block import CHANNEL, TENSOR, Block, parse_block


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.booleans()), min_size=1, max_size=3))
def test_each_element_has_the_scale_of_its_block(axes):
    """axes: how many blocks, how large, and whether the whole axis is meant (then one block)."""
    sizes = tuple(-1 if whole else size for _, size, whole in axes)
    shape = tuple(count * size for count, size, _ in axes)
    block = Block(sizes)
    counts = tuple(1 if whole else count for count, _, whole in axes)
    kept = len(block.sizes)
    expected = (counts + (1,) * len(shape))[:len(shape)] if kept else ()
    assert block.scale_shape(shape) == expected
    scales = np.arange(int(np.prod(expected, dtype=int))).reshape(expected)
    spread = np.broadcast_to(block.expand(scales, shape), shape)
    assert np.array_equal(spread, np.broadcast_to(block.expand(torch.from_numpy(scales), shape).numpy(), shape))
    largest = np.full(expected, -1)
    for place in itertools.product(*map(range, shape)):
        own = tuple(0 if whole else index // size for index, (_, size, whole) in zip(place, axes, strict=True))
        assert spread[place] == scales[own if kept else ()]
        largest[own if kept else ()] = max(largest[own if kept else ()], np.ravel_multi_index(place, shape))
    values, reduced = block.split(np.arange(int(np.prod(shape))).reshape(shape))
    assert np.array_equal(values.max(reduced), largest)


@pytest.mark.parametrize(("sizes", "shape", "axis"), [
    ((1, 128), (10, 100), 1), ((1, 32), (4, 33), 1), ((3,), (4, 6), 0), ((2, -1, 4), (4, 5, 6), 2),
    ((1, 200), (3, 100), 1)])
def test_groups_that_do_not_divide_are_refused(sizes, shape, axis):
    block = Block(sizes)
    for refused in (block.scale_shape, lambda shape: block.split(np.zeros(shape)),
                    lambda shape: block.split(torch.zeros(shape))):
        with pytest.raises(EncodingError, match=f"does not divide axis {axis} of shape"):
            refused(shape)


def test_axes_that_are_not_there_are_refused():
    with pytest.raises(EncodingError, match="more axes"):
        Block((1, 32)).scale_shape((64,))


def test_names_and_sizes():
    assert (parse_block("tensor"), parse_block("channel"), parse_block([1, 128])) == (TENSOR, CHANNEL, Block((1, 128)))
    assert Block((1, -1, -1)) == CHANNEL
    for wrong in ((0,), (1, -2), (1.5,)):
        with pytest.raises(EncodingError, match="sizes ≥ 1"):
            Block(wrong)

"""A program as something to call: tensors or arrays, whole batches or one input, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.engines.native.executor import NativeExecutor
from fewbits.errors import DataError
from fewbits.kernels import library


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    x = torch.randn(4, 2, 6, 6)
    return fb.quantize(net.eval(), x, [x])


@pytest.fixture(scope="module")
def pair():
    class Two(nn.Module):
        def forward(self, a, b):
            return {"sum": a + b, "product": [a * b]}

    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.randn(4, 3)
    return fb.quantize(Two().eval(), x, [x])


X = np.random.default_rng(0).normal(size=(7, 2, 6, 6)).astype(np.float32)


def frozen(array: np.ndarray) -> np.ndarray:
    held = array.copy()
    held.flags.writeable = False
    return held


@pytest.mark.parametrize("made", [
    lambda: X, lambda: X.astype(">f4").astype(np.float32), lambda: frozen(X), lambda: np.asfortranarray(X),
    lambda: X[::-1][::-1], lambda: np.repeat(X, 2, 0)[::2], lambda: (X,), lambda: [X],
], ids=range(8))
def test_arrays_in_arrays_out(model, made, recwarn):
    wanted = model(torch.from_numpy(X))
    found = model(made())
    assert type(found) is np.ndarray
    assert (found.dtype, found.shape) == (np.float32, (7, 5))
    assert np.array_equal(found, wanted.numpy())
    assert np.array_equal(model.codes(made()), model.codes(torch.from_numpy(X)).numpy())
    assert not recwarn.list


def test_the_results_are_arrays_of_their_own(model):
    first = model(X)
    held = first.copy()
    model(-X)
    assert np.array_equal(first, held)


def test_one_input_without_a_batch_axis(model):
    found = model(X[0])
    assert type(found) is np.ndarray
    assert np.array_equal(found, model(torch.from_numpy(X))[0].numpy())


def test_structures_of_arrays(pair):
    a, b = (np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32) for seed in (1, 2))
    wanted = pair(torch.from_numpy(a), torch.from_numpy(b))
    for found in (pair(a, b), pair((a, b)), pair(a=a, b=b)):
        assert np.array_equal(found["sum"], wanted["sum"].numpy())
        assert np.array_equal(found["product"][0], wanted["product"][0].numpy())
    mixed = pair(a, torch.from_numpy(b))
    assert torch.equal(mixed["sum"], wanted["sum"])


def test_tensors_that_are_not_plain_ones(model):
    wanted = model(torch.from_numpy(X))
    for x in (nn.Parameter(torch.from_numpy(X)), torch.from_numpy(X).requires_grad_(),
              torch.from_numpy(X).to(memory_format=torch.channels_last), torch.from_numpy(np.repeat(X, 2, 0))[::2]):
        assert torch.equal(model(x), wanted)


@pytest.mark.parametrize(("wrong", "told"), [
    (X.astype(np.float64), "is float64, but the model takes float32"), (X[:0], "is empty"),
    (X[:, :1], "has shape 7×1×6×6, but the model takes N×2×6×6"), (X.astype(">f4"), "an array of >f4"),
    (X.astype("U1"), "an array of <U1"), (X.astype(object), "an array of object"), (X.tolist(), "a batch of 7 tensors"),
    (np.float32(1), "a batch is a float32")], ids=range(8))
def test_what_it_does_not_take(model, wrong, told):
    with pytest.raises(DataError, match=told):
        model(wrong)


@pytest.mark.skipif(library.native() is None, reason="there is no native library here")
def test_few_sizes_stay_compiled(model):
    executor = NativeExecutor(model.program)
    name = model.program.inputs[0]
    for size in range(1, 20):
        x = np.repeat(X[:1], size, 0)
        assert np.array_equal(executor.real({name: x})[model.program.outputs[0]], np.repeat(model(X[:1]), size, 0))
    assert len(executor._compiled) <= 8

"""Calls that write into tensors: into parts of them, into inputs, into buffers."""

import pytest
import torch
from tests.called import Call
from torch import nn

import fewbits as fb
from fewbits.errors import CaptureError, InputWarning

X = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))


def first_zero(x):
    y = x * 2
    y[:, 0] = 0
    return y


def some_replaced(x):
    y = x * 2
    y[:, 1:, 2:5] = x[:, 1:, 2:5] + 1
    return y


def filled(x):
    y = torch.zeros(x.shape[0], 4, 8)
    y[:, 1:] = x
    return y


def input_changed(x):
    x.mul_(2)
    return x + 1


@pytest.mark.parametrize("function", [first_zero, some_replaced, filled, input_changed])
def test_what_is_written_is_what_is_read(function):
    net, before = Call(function), X.clone()
    model = fb.fold(fb.capture(net, X))
    assert torch.equal(X, before)
    other = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(other.clone()), net(other.clone()))


class Counting(nn.Module):
    def __init__(self, read: bool):
        super().__init__()
        self.read = read
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return x * self.count if self.read else x * 2


def test_a_counter_that_nothing_reads_is_left_out():
    model = fb.fold(fb.capture(Counting(read=False), X))
    assert torch.equal(model(X), X * 2) and torch.equal(model(X), X * 2)


def test_a_state_between_runs_is_refused_by_name():
    with pytest.raises(CaptureError, match="changes its buffer 'count' when it runs"):
        fb.capture(Counting(read=True), X)


def test_a_write_through_another_view_is_refused():
    def transposed(x):
        y = x * 2
        y.transpose(1, 2)[:, 0] = 0
        return y

    with pytest.raises(CaptureError, match="through transpose, which cannot be followed"):
        fb.capture(Call(transposed), X)


def test_a_network_that_changes_its_input_is_told_of():
    with pytest.warns(InputWarning, match="changes its input 0 in place"):
        fb.capture(Call(input_changed), X)

"""A branch on the batch size is refused; whatever computes the same for every size is not."""

import pytest
import torch
from torch import nn

import fewbits as fb
from called import Call
from fewbits.capture.capture import capture
from fewbits.errors import CaptureError

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BRANCHES = {
    "more than": lambda x, conv: conv(x * 2 if x.shape[0] > 3 else x),
    "fewer than": lambda x, conv: conv(x * 2 if x.shape[0] < 8 else x),
    "one": lambda x, conv: conv(x * 2 if x.shape[0] == 1 else x),
    "more than one": lambda x, conv: conv(x * 2 if len(x) > 1 else x),
    "even": lambda x, conv: conv(x * 2 if x.shape[0] % 2 == 0 else x),
}


def built(use):
    torch.manual_seed(0)
    return Call(use, nn.Conv2d(3, 4, 3)).eval()


@pytest.mark.parametrize("use", BRANCHES.values(), ids=BRANCHES)
def test_branches_on_the_size_are_refused(use):
    with pytest.raises(CaptureError, match="batch"):
        capture(built(use), X)


@pytest.mark.parametrize("use", [
    lambda x, conv: conv(x).flatten(1), lambda x, conv: conv(x).reshape(x.shape[0], -1),
    lambda x, conv: conv(x).mean((2, 3), keepdim=True).squeeze(), lambda x, conv: conv(x).view(x.size(0), 4, -1),
    lambda x, conv: conv(x * 2 if x.shape[1] == 3 else x),
    lambda x, conv: conv(x) if x.shape[0] > 1 else conv(x) * 1.0])
def test_every_size_computing_the_same_is_taken(use):
    net = built(use)
    program = fb.quantize(net, X, [X], recipe="w8a8")
    with torch.no_grad():
        for size in (2, 3):
            error = (program(X[:size]) - net(X[:size])).square().sum() / net(X[:size]).square().sum()
            assert error < 1e-3


def test_a_model_that_takes_no_batch_of_one_is_taken():
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(4, 2)

        def forward(self, x):
            if x.shape[0] == 1:
                raise ValueError("one is too few")
            return self.line(x)

    capture(Many().eval(), torch.randn(4, 4))

"""Recurrent layers taken apart: torch's own outputs in float, and programs that every engine agrees on."""

import pytest
import torch
from torch import nn

from fewbits.errors import CaptureError
from fewbits.graph.capture import capture
from fewbits.graph.fold import fold
from fewbits.lower.lower import lower
from fewbits.program.reference import run
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.testing import differences


class Sequence(nn.Module):
    """A recurrent layer, its outputs, its last state of one layer, and a head."""

    def __init__(self, layer, features, last=None):
        super().__init__()
        self.layer, self.head, self.last = layer, nn.Linear(features, 3), last

    def forward(self, x):
        outputs, states = self.layer(x)
        if self.last is None:
            return self.head(outputs)
        states = states[0] if isinstance(states, tuple) else states
        return self.head(states[self.last])


class Steps(nn.Module):
    """A cell that runs twice, its first state 0."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state = self.cell(x)
        state = self.cell(0.5 * x, state)
        return state[0] if isinstance(state, tuple) else state


NETWORKS = {
    "lstm": lambda: (Sequence(nn.LSTM(4, 5, batch_first=True), 5), (6, 7, 4)),
    "lstm without biases, last state": lambda: (Sequence(nn.LSTM(4, 5, bias=False, batch_first=True), 5, -1),
                                                (6, 3, 4)),
    "two layers both ways": lambda: (Sequence(nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True), 10), (6, 4, 4)),
    "gru": lambda: (Sequence(nn.GRU(4, 5, batch_first=True), 5), (6, 7, 4)),
    "gru both ways, last state": lambda: (Sequence(nn.GRU(4, 5, 2, batch_first=True, bidirectional=True), 5, 3),
                                          (6, 3, 4)),
    "gru without biases": lambda: (Sequence(nn.GRU(4, 5, bias=False, batch_first=True), 5), (6, 3, 4)),
    "lstm cell": lambda: (Steps(nn.LSTMCell(4, 5)), (6, 4)),
    "gru cell": lambda: (Steps(nn.GRUCell(4, 5)), (6, 4)),
}


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_codes(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, shape = NETWORKS[name]()
        x = torch.randn(*shape)
    model = fold(capture(net.eval(), x))
    with torch.no_grad():
        torch.testing.assert_close(model(x[:3]), net(x[:3]), rtol=1e-5, atol=1e-6)
    simulation = calibrate(model, plan(model, "w8a8"), [x])
    program = lower(simulation)
    assert not differences(program, {program.inputs[0]: x.numpy()})
    with torch.no_grad():
        error = (torch.from_numpy(program_numbers(program, x)) - net(x)).abs().max()
    assert error < 0.1


def program_numbers(program, x):
    codes = run(program, {program.inputs[0]: x.numpy()})
    return program.encoding(program.outputs[0]).decode(codes[program.outputs[0]])


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_batch_behind_time_is_refused_by_name():
    with pytest.raises(CaptureError, match="batch_first=True"):
        capture(Sequence(nn.LSTM(4, 5), 5).eval(), torch.randn(6, 7, 4))

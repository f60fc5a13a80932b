"""Recurrent layers as recurrences: torch's own outputs in float, and programs that every engine agrees on."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from fewbits.api import QuantizedModel
from fewbits.artifact.file import to_bytes
from fewbits.capture.capture import capture
from fewbits.engines.executable import Executable
from fewbits.errors import CaptureError, DataError, RepairWarning, UnrolledWarning
from fewbits.fold.fold import fold
from fewbits.graph.recurrent_sizes import check_recurrent
from fewbits.lower.lower import lower
from fewbits.optimize.adaround import adaround
from fewbits.optimize.bias_correction import correct_biases
from fewbits.program.program import leaves
from fewbits.program.reference import run
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.report.report import build
from fewbits.testing import differences
from fewbits.train.fit import fit
from fewbits.train.registry import trainable

aten = torch.ops.aten


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


class Written(nn.Module):
    """A recurrent layer, used as a function says."""

    def __init__(self, layer, use):
        super().__init__()
        self.layer, self.use = layer, use

    def forward(self, *inputs):
        return self.use(self.layer, *inputs)


class Read(nn.Module):
    """A text reader in small (Shi et al. 2015, arXiv:1507.05717): columns of an image's features are the steps."""

    def __init__(self):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(1, 4, 3, padding=1), nn.LSTM(12, 5, batch_first=True, bidirectional=True)

    def forward(self, x):
        features = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.layer(features.permute(0, 3, 1, 2).flatten(2))[0]


def turned(layer, x):
    return layer(x.transpose(0, 1))[0].transpose(0, 1)


def given(layer, x, *states):
    states = tuple(state[None] for state in states)
    return layer(x, states if len(states) > 1 else states[0])


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
    "rnn cell": lambda: (Steps(nn.RNNCell(4, 5, nonlinearity="relu")), (6, 4)),
    "rnn": lambda: (Written(nn.RNN(4, 5, batch_first=True), lambda layer, x: layer(x)), (6, 7, 4)),
    "rnn of relu": lambda: (Written(nn.RNN(4, 5, 2, nonlinearity="relu", batch_first=True), lambda layer, x: layer(x)),
                            (6, 4, 4)),
    "projected": lambda: (Written(nn.LSTM(4, 6, 2, proj_size=3, batch_first=True, bidirectional=True),
                                  lambda layer, x: layer(x)), (6, 4, 4)),
    "time first": lambda: (Written(nn.GRU(4, 5, bidirectional=True), turned), (6, 7, 4)),
    "states of lstm in and out": lambda: (Written(nn.LSTM(4, 5, batch_first=True), given), (6, 7, 4), (6, 5), (6, 5)),
    "state of gru in and out": lambda: (Written(nn.GRU(4, 5, batch_first=True), given), (6, 7, 4), (6, 5)),
    "states of all layers, as torch has them": lambda: (
        Written(nn.LSTM(4, 5, 2, batch_first=True), lambda layer, x, h, c: layer(x, (h, c))), (6, 7, 4), (2, 6, 5),
        (2, 6, 5)),
    "text reader": lambda: (Read(), (6, 1, 6, 8)),
}


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_codes(name):
    net, example = made(name)
    model = fold(capture(net, example))
    fewer = [x[:3] if len(x) == 6 else x[:, :3] for x in example]
    with torch.no_grad():
        for one, other in zip(flat(model(*fewer)), flat(net(*fewer)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    program = lower(calibrate(model, plan(model, "w8a8"), [example]))
    given = {name: x.numpy() for name, x in zip(program.inputs, example, strict=True)}
    assert not differences(program, given)
    codes = run(program, given)
    with torch.no_grad():
        for output, wanted in zip(leaves(program.structure), flat(net(*example)), strict=True):
            error = np.abs(program.real(output, codes[output]) - wanted.numpy()).max()
            assert error < 0.1


def made(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, *shapes = NETWORKS[name]()
        return net.eval(), tuple(torch.randn(*shape) for shape in shapes)


def flat(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else [leaf for each in outputs for leaf in flat(each)]


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("recipe", ["w8", "dynamic-w8a8", "w4a8", "w8a8-signed"])
@pytest.mark.parametrize("name", ["states of lstm in and out", "gru"])
def test_other_recipes_run_alike_in_every_engine(name, recipe):
    net, example = made(name)
    model = fold(capture(net, example))
    program = lower(calibrate(model, plan(model, recipe), [example]))
    assert not differences(program, {name: x.numpy() for name, x in zip(program.inputs, example, strict=True)})


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_weights_are_stored_once_however_long_the_sequence(kind):
    torch.manual_seed(0)
    net = Sequence(kind(20, 32, batch_first=True), 32, -1).eval()
    sizes = []
    for length in (5, 40):
        x = torch.randn(4, length, 20)
        model = fold(capture(net, x))
        program = lower(calibrate(model, plan(model, "w8a8"), [x]))
        sizes.append(len(to_bytes(program)))
        assert len(program.nodes) == 4
    weights = sum(parameter.numel() for parameter in net.parameters())
    assert max(sizes) - min(sizes) < 64
    assert max(sizes) <= 1.5 * weights + 16 * 1024


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_recurrence_that_learns_is_lowered_as_it_learned():
    torch.manual_seed(0)
    net, x, y = Sequence(nn.GRU(4, 5, batch_first=True), 5, -1).eval(), torch.randn(8, 6, 4), torch.randint(0, 3, (8,))
    model = fold(capture(net, x), norms="keep")
    simulation = trainable(calibrate(model, plan(model, "qat-w8a8"), [x]))
    before = simulation.model.tensor("layer.weight_hh_l0").detach().clone()
    fit(simulation, [(x, y)], epochs=2)
    assert not torch.equal(before, simulation.model.tensor("layer.weight_hh_l0"))
    program = lower(simulation)
    with torch.no_grad():
        wanted = simulation.eval()(x).numpy()
    output = program.outputs[0]
    got = program.real(output, run(program, {"x": x.numpy()})[output])
    assert np.abs(got - wanted).max() < 1e-5


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_batch_behind_time_is_refused_by_name():
    with pytest.raises(CaptureError, match="batch_first=True"):
        capture(Sequence(nn.LSTM(4, 5), 5).eval(), torch.randn(6, 7, 4))


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_first_state_of_one_batch_size_is_refused_by_name():
    def from_zeros(layer, x):
        return layer(x, torch.zeros(1, 6, 5))[0]

    with pytest.raises(CaptureError, match="fixes the batch size"):
        capture(Written(nn.GRU(4, 5, batch_first=True), from_zeros).eval(), torch.randn(6, 7, 4))


class Loop(nn.Module):
    """A loop over single steps, as one writes it. how: what it goes over, and what it gives."""

    def __init__(self, cells, how):
        super().__init__()
        self.cells, self.how = nn.ModuleList(cells), how

    def forward(self, x, *first):
        states = [first if len(first) > 1 else first[0]] if first else [None] * len(self.cells)
        steps = x.transpose(0, 1).unbind(0) if self.how == "time first" else [x[:, t] for t in range(x.shape[1])]
        if self.how == "backwards":
            steps = steps[::-1]
        if self.how == "some":
            steps = steps[1:4]
        outputs = []
        for step in steps:
            for number, cell in enumerate(self.cells):
                states[number] = cell(step, states[number])
                step = states[number][0] if isinstance(states[number], tuple) else states[number]
                if self.how == "dropout":
                    step = F.dropout(step, 0.1, self.training)
            outputs.append(step)
        if self.how == "last":
            return states[-1]
        if self.how == "each by itself":
            return tuple(outputs)
        if self.how == "backwards":
            outputs = outputs[::-1]
        return torch.stack(outputs).transpose(0, 1) if self.how == "time first" else torch.stack(outputs, 1)


LOOPS = {
    "lstm": lambda: (Loop([nn.LSTMCell(4, 5)], "all"), 1, (6, 7, 4)),
    "gru": lambda: (Loop([nn.GRUCell(4, 5)], "all"), 1, (6, 7, 4)),
    "rnn": lambda: (Loop([nn.RNNCell(4, 5, nonlinearity="relu")], "all"), 1, (6, 7, 4)),
    "two layers, dropout between": lambda: (Loop([nn.LSTMCell(4, 5), nn.GRUCell(5, 3)], "dropout"), 2, (6, 7, 4)),
    "backwards": lambda: (Loop([nn.LSTMCell(4, 5, bias=False)], "backwards"), 1, (6, 7, 4)),
    "last states": lambda: (Loop([nn.LSTMCell(4, 5)], "last"), 1, (6, 7, 4)),
    "time first, given states": lambda: (Loop([nn.LSTMCell(4, 5)], "time first"), 1, (6, 7, 4), (6, 5), (6, 5)),
    "some of the steps": lambda: (Loop([nn.GRUCell(4, 5)], "some"), 1, (6, 7, 4)),
    "each step's output": lambda: (Loop([nn.LSTMCell(4, 5)], "each by itself"), 1, (6, 7, 4)),
}


@pytest.mark.filterwarnings("error:.*steps of a loop")
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_of_single_steps_becomes_one_recurrence(name):
    torch.manual_seed(0)
    net, layers, *shapes = LOOPS[name]()
    example = tuple(torch.randn(*shape) for shape in shapes)
    model = fold(capture(net.eval(), example))
    assert sum(node.body is not None for node in model.graph.nodes) == layers
    assert not any(node.role == "dot" and len(node.shape) == 2 for node in model.graph.nodes), "no step is left outside"
    with torch.no_grad():
        for one, other in zip(flat(model(*example)), flat(net(*example)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    program = lower(calibrate(model, plan(model, "w8a8"), [example]))
    assert not differences(program, {name: x.numpy() for name, x in zip(program.inputs, example, strict=True)})


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_loop_and_the_layer_give_the_same_program():
    torch.manual_seed(0)
    layer, cell = nn.LSTM(4, 5, batch_first=True), nn.LSTMCell(4, 5)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x, codes = torch.randn(6, 7, 4), []
    for net in (Written(layer, lambda layer, x: layer(x)[0]), Loop([cell], "all")):
        model = fold(capture(net.eval(), x))
        codes.append(run(program := lower(calibrate(model, plan(model, "w8a8"), [x])), {program.inputs[0]: x.numpy()}
                         )[program.outputs[0]])
    np.testing.assert_array_equal(*codes)


def test_a_loop_that_is_no_recurrence_says_so():
    class Gates(nn.Module):
        def __init__(self):
            super().__init__()
            self.given, self.kept = nn.Linear(4, 5), nn.Linear(5, 5)

        def forward(self, x):
            h = self.given(x[:, 0]).tanh()
            for t in range(1, 10):
                h = (self.given(x[:, t]) + self.kept(h)).tanh()
            return h

    with pytest.warns(UnrolledWarning, match=r"'given.weight' \(and 1 more\) is read by 10 steps of a loop.* nn.LSTM,"):
        fold(capture(Gates().eval(), torch.randn(3, 10, 4)))


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_program_runs_on_sequences_of_other_lengths():
    torch.manual_seed(0)
    net, x = Sequence(nn.LSTM(20, 32, batch_first=True), 32, -1).eval(), torch.randn(2, 300, 20)
    model = fold(capture(net, x))
    program = lower(calibrate(model, plan(model, "w8a8"), [x]))
    assert len(to_bytes(program)) <= 1.5 * sum(each.numel() for each in net.parameters()) + 16_000
    for length in (10, 1000):
        longer = torch.randn(2, length, 20)
        assert not differences(program, {"x": longer.numpy()})
        wanted = Executable(program, "reference").codes(longer)
        assert all(torch.equal(wanted, Executable(program, name).codes(longer)) for name in ("native", "fastest"))
        with torch.no_grad():
            error = (Executable(program)(longer) - net(longer)).square().sum()
            assert 10 * torch.log10(net(longer).square().sum() / error) > 20


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("repair", [correct_biases, adaround])
def test_repairs_and_reports_say_what_they_leave_out(repair):
    net, (x,) = made("lstm")
    model = fold(capture(net, x))
    simulation = calibrate(model, plan(model, "w8a8"), [x])
    with pytest.warns(RepairWarning, match=r"leaves the layers inside recurrences .*\(layer#3\.layer0\.before\)"):
        repair(simulation, [x])
    prog = QuantizedModel(lower(simulation))
    report = build(prog.program, simulation, [x])
    assert "layer#3.layer0.cell" in report.inside
    assert not {site.site for site in report.sites} & set(report.inside)
    report.render(Console(file=(printed := io.StringIO()), width=200))
    for told in (printed.getvalue(), report.html()):
        assert "tensors inside recurrences" in " ".join(told.split())


CALLS = {
    "lstm": lambda: (nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True), (3, 6, 4), [(4, 3, 5), (4, 3, 5)]),
    "lstm, time first": lambda: (nn.LSTM(4, 5), (6, 3, 4), [(1, 3, 5), (1, 3, 5)]),
    "lstm with projection": lambda: (nn.LSTM(4, 5, proj_size=2, batch_first=True), (3, 6, 4), [(1, 3, 2), (1, 3, 5)]),
    "gru": lambda: (nn.GRU(4, 5, bias=False, batch_first=True), (3, 6, 4), [(1, 3, 5)]),
    "rnn": lambda: (nn.RNN(4, 5, batch_first=True), (3, 6, 4), [(1, 3, 5)]),
    "rnn of relu": lambda: (nn.RNN(4, 5, nonlinearity="relu", batch_first=True), (3, 6, 4), [(1, 3, 5)]),
    "lstm cell": lambda: (nn.LSTMCell(4, 5), (3, 4), [(3, 5), (3, 5)]),
    "gru cell": lambda: (nn.GRUCell(4, 5, bias=False), (3, 4), [(3, 5)]),
    "rnn cell": lambda: (nn.RNNCell(4, 5), (3, 4), [(3, 5)]),
}
OPERATORS = {"LSTM": aten.lstm.input, "GRU": aten.gru.input, "LSTMCell": aten.lstm_cell.default,
             "GRUCell": aten.gru_cell.default, "RNNCell": aten.rnn_tanh_cell.default}


def arguments_of(name):
    """A recurrent operator, and arguments that go together."""
    layer, x, states = CALLS[name]()
    target = OPERATORS.get(type(layer).__name__) or getattr(aten, f"rnn_{layer.nonlinearity}").input
    hx = [torch.randn(*state) for state in states]
    given = {"input": torch.randn(*x), "hx": hx if len(hx) > 1 else hx[0]}
    if isinstance(layer, nn.RNNCellBase):
        return target, given | {"w_ih": layer.weight_ih, "w_hh": layer.weight_hh, "b_ih": layer.bias_ih,
                                "b_hh": layer.bias_hh}
    return target, given | {
        "params": list(layer._flat_weights), "has_biases": layer.bias, "num_layers": layer.num_layers, "dropout": 0.0,
        "train": False, "bidirectional": layer.bidirectional, "batch_first": layer.batch_first}


@pytest.mark.parametrize("name", CALLS)
def test_states_that_do_not_fit_are_refused_before_the_operator_reads_them(name):
    """torch's operators trust these sizes: the wrong ones read beyond their memory, and may end the process."""
    target, given = arguments_of(name)
    check_recurrent("layer", target, given)  # what goes together passes, and runs
    target(*given.values())
    several = isinstance(given["hx"], list)
    states = given["hx"] if several else [given["hx"]]
    for number, state in enumerate(states):
        for axis in range(state.ndim):
            for size in (state.shape[axis] - 1, state.shape[axis] + 1):
                other = state.new_zeros([size if at == axis else old for at, old in enumerate(state.shape)])
                hx = [other if at == number else old for at, old in enumerate(states)]
                with pytest.raises(DataError, match=f"recurrent call 'layer' is given state {number} of shape"):
                    check_recurrent("layer", target, given | {"hx": hx if several else hx[0]})
    for axis in range(given["input"].ndim):
        x = given["input"]
        if "params" in given and axis == int(given["batch_first"]):
            check_recurrent("layer", target, given | {"input": x.narrow(axis, 0, 2)})  # any number of steps
            with pytest.raises(DataError, match="sequence of 0 steps"):
                check_recurrent("layer", target, given | {"input": x.narrow(axis, 0, 0)})
            continue
        with pytest.raises(DataError, match="recurrent call 'layer' is given"):
            check_recurrent("layer", target, given | {"input": x.narrow(axis, 0, 2)})
    weights = "params" if "params" in given else "w_hh"
    narrow = given["w_hh"][:-1] if weights == "w_hh" else [given["params"][0], given["params"][1][:-1],
                                                          *given["params"][2:]]
    with pytest.raises(DataError, match="is given state weights of shape"):
        check_recurrent("layer", target, given | {weights: narrow})


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("name", ["states of lstm in and out", "state of gru in and out",
                                  "states of all layers, as torch has them"])
def test_states_of_another_batch_are_refused_at_every_stage(name):
    net, example = made(name)
    wrong = (example[0], *(state[:2] if len(state) == 6 else state[:, :2] for state in example[1:]))
    model = capture(net, example)
    with pytest.raises(DataError, match="recurrent call 'layer' is given state 0"):
        model(*wrong)
    model = fold(model)
    program = lower(calibrate(model, plan(model, "w8a8"), [example]))
    for engine in ("reference", "torch", "native", "onnxruntime"):
        with pytest.raises(DataError, match=r"inputs of these sizes do not go together: '(x|inputs_0)'.*same batch"):
            Executable(program, engine)(*wrong)

"""Bad input to the Python verbs: one error of ours, which names the thing, and for operators the line of the user."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewbits as fb
from called import Call
from fewbits.errors import (
    CalibrationError,
    CaptureError,
    DataError,
    LoweringError,
    OptionError,
    ProgramError,
    UnsupportedError,
)


class Several(nn.Module):
    """As many inputs as there are."""

    def forward(self, *xs):
        return xs[0] * 2 + xs[-1]


IMAGE, ROWS, FLAT = (3, 4, 6, 6), (3, 5, 8), (3, 8)

ATTRIBUTES = {
    "positions of a pool": (lambda x: F.max_pool2d(x, 2, return_indices=True)[1], IMAGE, "max_pool2d_with_indices"),
    "softmax over the batch": (lambda x: x.softmax(0), FLAT, "runs over the batch"),
    "long softmax": (lambda x: x.softmax(-1), (2, 3000), "its sum holds 2047"),
    "joined along the batch": (lambda x: torch.cat([x, x]), ROWS, "joins along the batch"),
    "mean over the batch": (lambda x: x.mean(0), ROWS, "averages over the batch"),
    "a slice of the batch": (lambda x: x[1:], ROWS, "slices the batch"),
    "the batch turned round": (lambda x: x.flip(0), ROWS, "turns the batch round"),
    "mean of everything": (lambda x: x.mean(), FLAT, "mean"),
    "a product with a vector": (lambda x: x @ torch.ones(8), ROWS, "fewer than two axes"),
    "a cast": (lambda x: x.half() * 2, ROWS, "makes float16.*leave the cast out"),
}
TAKEN = {
    "padding with 1": (lambda x: F.pad(x, (1, 1), value=1.0), ROWS),
    "a negative margin": (lambda x: F.pad(x, (-1, 1)), ROWS),
    "bounds the wrong way round": (lambda x: x.clamp(1, -1), ROWS),
    "a comparison": (lambda x: torch.where(x > 0, x.exp(), x), ROWS),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_that_an_operator_cannot_take(name):
    function, shape, sentence = ATTRIBUTES[name]
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UnsupportedError, match=sentence) as caught:
        fb.quantize(Call(function), x, [x])
    assert "at called.py:" in str(caught.value)


@pytest.mark.parametrize("name", TAKEN)
def test_what_was_refused_once_is_right_now(name):
    function, shape = TAKEN[name]
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    error = (fb.quantize(Call(function), x, [x])(x) - function(x)).double().square().sum()
    assert float(error) <= 1e-3 * float(function(x).double().square().sum()), "30 dB"


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize(("layer", "states"), [
    (nn.GRU(8, 4, 2, batch_first=True), lambda found: found[1]),
    (nn.LSTM(8, 4, 2, batch_first=True), lambda found: found[1][0]),
    (nn.LSTM(8, 4, proj_size=2, batch_first=True), lambda found: found[0])])
def test_recurrent_layers_that_were_refused_once(layer, states):
    """All last states together, and states that are projected, which have a parameter more."""
    x = torch.randn(*ROWS, generator=torch.Generator().manual_seed(0))
    wanted = states(layer(x)).detach()
    got = fb.quantize(Call(lambda x, layer: states(layer(x)), layer), x, [x])(x)
    assert float((got - wanted).double().square().sum()) <= 1e-2 * float(wanted.double().square().sum()), "20 dB"


def test_as_many_inputs_as_there_are():
    a, b = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    program = fb.quantize(Several(), (a, b), [(a, b)])
    assert (program(a, b) - (2 * a + b)).abs().max() < 0.1


LINEAR, X = nn.Linear(3, 3), torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def simulation():
    model = fb.fold(fb.capture(LINEAR, X))
    return fb.calibrate(model, fb.plan(model, "w8a8"), [X])


def test_a_model_without_values_or_in_half_precision():
    model = fb.fold(fb.capture(LINEAR, X))
    plan = fb.plan(model, "w8a8")
    for moved, sentence in ((lambda m: m.to("meta"), "meta device"), (lambda m: m.half(), "float16: quantizing")):
        with pytest.raises(LoweringError, match=sentence):
            fb.lower(moved(simulation()))
        with pytest.raises(CalibrationError, match=sentence):
            fb.calibrate(moved(fb.fold(fb.capture(LINEAR, X))), plan, [X])


@pytest.mark.parametrize("net", [None, torch.relu])
def test_a_network_that_is_none(net):
    with pytest.raises(CaptureError, match=r"give an nn\.Module"):
        fb.quantize(net, X, [X])


def test_weights_without_numbers():
    with pytest.raises(CalibrationError, match=r"'weight' of shape \(0, 3\) holds no numbers"):
        fb.quantize(nn.Linear(3, 0), X, [X])


@pytest.mark.parametrize("recipe", ["w8a8", "w8", "dynamic-w8a8"])
def test_batches_at_run_time(recipe):
    """One image is as good as many; none, half precision and no values are refused."""
    program = fb.quantize(nn.Sequential(LINEAR, nn.ReLU()), X, [X], recipe=recipe)
    alone = program(X[:1])
    assert alone.shape == (1, 3)
    if recipe != "dynamic-w8a8":  # whose grid is that of the batch
        assert torch.allclose(alone, program(X)[:1], atol=1e-6)
    assert torch.equal(program(X[0]), alone[0]), "one input without a batch axis is a batch of one"
    for batch, sentence in ((X[:0], "is empty"), (X.half(), "float16"), (X.to("meta"), "meta device"),
                            (X[0, 0], "has shape"), (X[0, :2], "has shape 2, but the model takes N×3")):
        with pytest.raises(DataError, match=sentence):
            program(batch)
    with pytest.raises(CalibrationError, match="meta device"):
        fb.quantize(LINEAR, X, [X.to("meta")])


def test_dynamic_ranges_of_nan():
    program = fb.quantize(LINEAR, X, recipe="dynamic-w8a8")
    with pytest.raises(DataError, match="NaN or Inf"):
        program(X * torch.nan)
    with pytest.raises(DataError, match="NaN or Inf"):
        program(X / 0)


def test_row_numbers_that_an_embedding_does_not_have():
    net, rows = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2)), torch.tensor([[0, 3, 6], [1, 2, 3]])
    with pytest.raises(CalibrationError, match="batch 0 numbers rows that an embedding does not have"):
        fb.quantize(net, rows, [rows + 7])
    for recipe in ("w8a8", "w8"):
        program = fb.quantize(net, rows, [rows], recipe=recipe)
        for wrong in (rows + 7, rows - 1):
            with pytest.raises(ProgramError, match="has rows 0 to 6"):
                program(wrong)


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda net, sim, x: fb.plan(net, "w8a8"), r"model is a Linear, not a Model: give what fb.capture\(net, example\)"),
    (lambda net, sim, x: fb.calibrate(net, sim.plan, [x]), "model is a Linear, not a Model"),
    (lambda net, sim, x: fb.calibrate(sim.model, "w8a8", [x]), r"plan is a str, not a Plan: give what fb.plan\("),
    (lambda net, sim, x: fb.lower(sim.model), r"simulation is a Model, not a Simulation: give what fb.calibrate\("),
    (lambda net, sim, x: fb.export_onnx(sim, "x.onnx", verify=[x]), r"model is a Simulation, .*give what fb.lower\("),
    (lambda net, sim, x: fb.report(sim, sim=sim, batches=[x]), r"model is a Simulation, .*give what fb.lower\("),
    (lambda net, sim, x: fb.report(fb.lower(sim), sim=net, batches=[x]), "sim is a Linear, not a Simulation"),
])
def test_a_stage_left_out_is_named(call, sentence):
    net, x = nn.Linear(8, 3), torch.randn(3, 8)
    model = fb.capture(net, x)
    with pytest.raises(OptionError, match=sentence):
        call(net, fb.calibrate(model, fb.plan(model, "w8a8"), [x]), x)

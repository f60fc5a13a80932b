"""Calibration: the ranges it finds, and every kind of data it refuses."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fewbits.capture.capture import capture
from fewbits.errors import CalibrationError, UnsupportedError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program import reference
from fewbits.quant.calibrate import calibrate
from fewbits.quant.fake_quantize import fake_quantize
from fewbits.quant.planner import plan
from fewbits.quant.simulation import Simulation


def small_model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return fold(capture(net, torch.randn(2, 2, 6, 6)))


@pytest.fixture
def model():
    return small_model()


@pytest.fixture
def batches():
    return [torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def test_ranges_are_those_of_the_data(model, batches):
    simulation = calibrate(model, plan(model, "w8a8"), batches)
    everything = torch.cat(batches)
    low, high = everything.min().item(), everything.max().item()
    assert simulation.quantizer("input").encoding.scale == np.float32((high - low) / 255)
    weight = model.tensor("0.weight").detach()
    expected = (weight.abs().amax((1, 2, 3)).double() / 127).numpy().astype(np.float32)
    assert simulation.quantizer("0.weight").encoding.scale.ravel().tolist() == expected.tolist()


def test_order_and_split_of_the_batches_do_not_matter(model, batches):
    one = calibrate(model, plan(model, "w8a8"), batches)
    other = calibrate(model, plan(model, "w8a8"), [torch.cat(batches[::-1])])
    for a, b in zip(one.quantizers(), other.quantizers(), strict=True):
        np.testing.assert_allclose(a.encoding.scale, b.encoding.scale, rtol=1e-6)


def test_a_one_shot_iterator_and_labelled_batches(model, batches):
    labelled = ((x, torch.zeros(len(x))) for x in batches)
    calibrate(model, plan(model, "w8a8"), labelled, batch_to_inputs=lambda batch: batch[0])


class Paired(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, first, second):
        return torch.relu(self.left(first) + self.right(second))


def test_loaders_of_tensors_tuples_and_dicts_give_the_same_grids():
    """Two inputs and a label in one data set, as torch's own loader hands them over."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(12, size, generator=generator) * size for size in (4, 5))
    rows = [{"a": a, "b": b, "label": i} for i, (a, b) in enumerate(zip(first, second, strict=True))]
    torch.manual_seed(0)
    model = fold(capture(Paired(), (first[:2], second[:2])))
    names = [item.name for item in model.graph.inputs]

    def grids(loader, pick=None):
        quantizers = calibrate(model, plan(model, "w8a8"), loader, batch_to_inputs=pick).quantizers()
        return [(quantizer.site, quantizer.encoding.scale.tolist(), quantizer.encoding.zero_point.tolist())
                for quantizer in quantizers]

    tuples = DataLoader(TensorDataset(first, second), batch_size=4)
    wanted = grids(tuples)
    labelled = DataLoader(TensorDataset(first, second, torch.arange(12)), batch_size=4)
    dicts = DataLoader(rows, batch_size=4)  # pyright: ignore[reportArgumentType]
    packed = DataLoader(torch.cat([first, second], 1), batch_size=4)  # pyright: ignore[reportArgumentType]
    assert grids(labelled, lambda batch: batch[:2]) == wanted
    assert grids(dicts, lambda batch: (batch["a"], batch["b"])) == wanted
    assert grids(dicts, lambda batch: {names[1]: batch["b"], names[0]: batch["a"]}) == wanted
    assert grids(packed, lambda batch: batch.split([4, 5], 1)) == wanted
    for loader in (labelled, dicts, packed):
        with pytest.raises(CalibrationError, match="pass batch_to_inputs"):
            grids(loader)


def refused(model, batches, **keywords) -> str:
    with pytest.raises(CalibrationError) as caught:
        calibrate(model, plan(model, "w8a8"), batches, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(model, batches, value):
    batches[2][1, 0, 3, 3] = value
    message = refused(model, batches)
    assert "batch 2" in message
    assert "'input'" in message
    assert ("NaN" if value != value else "Inf") in message


def test_a_site_that_overflows_is_named(model, batches):
    model.tensor("0.bias").data[0] = 3e38
    model.tensor("0.weight").data[0] = 3e38
    message = refused(model, [batch.abs() * 10 for batch in batches])
    assert "batch 0" in message
    assert "tensor '2'" in message


def test_no_batches(model):
    assert "no calibration batches" in refused(model, [])
    assert "no calibration batches" in refused(model, iter(()))


@pytest.mark.parametrize(("batch", "words"), [
    (torch.randn(2, 3, 6, 6), "has shape 2×3×6×6, but the model takes N×2×6×6"),
    (torch.randn(2, 2, 6), "but the model takes N×2×6×6"),
    (torch.randn(2, 2, 6, 6).double(), "is float64, but the model takes float32"),
    (torch.zeros(2, 2, 6, 6, dtype=torch.uint8), "is uint8"),
    (torch.zeros(0, 2, 6, 6), "is empty"),
    ((torch.randn(2, 2, 6, 6), torch.zeros(2)), "batch_to_inputs"),
    ({"picture": torch.randn(2, 2, 6, 6)}, "picture"),
    ("text", "batch is a str"),
    (([1, 2],), "is a list, not a tensor"),
])
def test_batches_of_the_wrong_kind(model, batch, words):
    message = refused(model, [torch.randn(2, 2, 6, 6), batch])
    assert "batch 1" in message
    assert words in message


def test_a_site_never_reached(model, batches):
    simulation = Simulation(model, plan(model, "w8a8"))
    with pytest.raises(CalibrationError, match="'2' was never reached"):
        simulation.quantizer("2").fit()
    with pytest.raises(CalibrationError, match="no encoding yet"):
        lower(simulation)


def test_tiny_weights_beside_a_bias_still_fit():
    """A channel that batch norm folding leaves with weights near 0 and a real bias."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1))
    net[0].weight.data[:] = torch.tensor([1.0, 1e-12]).reshape(2, 1, 1, 1)
    net[0].bias.data[:] = torch.tensor([0.5, 0.7])
    x = torch.rand(2, 1, 3, 3)
    model = fold(capture(net, x))
    program = lower(calibrate(model, plan(model, "w8a8"), [x]))
    codes = reference.run(program, {"input": x.numpy()})["0"]
    np.testing.assert_allclose(program.encoding("0").decode(codes)[:, 1], 0.7, rtol=1e-6)


def test_simulation_is_an_ordinary_module(model, batches):
    simulation = calibrate(model, plan(model, "w8a8"), batches)
    x = batches[0]
    expected = simulation(x)
    twin = copy.deepcopy(simulation)
    assert torch.equal(twin(x), expected)
    twin.load_state_dict(simulation.state_dict())
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin.train()
    twin(x).square().sum().backward()
    optimizer.step()
    twin.eval()
    assert not torch.equal(twin(x), expected), "it trains"
    assert torch.equal(simulation(x), expected), "and the copy has parameters of its own"
    assert simulation.to("meta")(x.to("meta")).shape == expected.shape


def test_modes(model, batches):
    simulation = calibrate(model, plan(model, "w8a8"), batches)
    simulated = simulation(batches[0])
    simulation.set_mode("off")
    assert torch.equal(simulation(batches[0]), model(batches[0]))
    assert not torch.equal(simulated, model(batches[0]))


def test_a_fresh_state_dict_carries_the_grids(model, batches):
    simulation = calibrate(model, plan(model, "w8a8"), batches)
    other = Simulation(small_model(), simulation.plan)
    other.load_state_dict(simulation.state_dict())
    other.set_mode("simulate")
    assert torch.equal(other(batches[0]), simulation(batches[0]))


def test_fake_quantize_is_encode_then_decode(model, batches):
    simulation = calibrate(model, plan(model, "w8a8"), batches)
    quantizer = simulation.quantizer("input")
    x = batches[0] * 2
    expected = quantizer.encoding.encode(x.numpy()).dequantize()
    assert np.array_equal(quantizer(x).numpy(), expected)


def test_gradient_passes_inside_the_range_only():
    x = torch.tensor([-3.0, -0.3, 0.4, 1.0, 9.0], requires_grad=True)
    fake_quantize(x, torch.tensor(0.5), 0, -4, 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def wider_model():
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))
    return fold(capture(net, torch.randn(2, 2, 6, 6)))


@pytest.mark.parametrize(("other", "sentence"), [
    (lambda: capture(nn.Sequential(nn.Conv2d(2, 4, 3)), torch.randn(2, 2, 6, 6)), r"which has no '2'"),
    (lambda: capture(nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.Linear(3, 3)), torch.randn(2, 2, 6, 6)),
     "whose tensor '1.weight' this one does not have"),
    (wider_model, r"whose '0.weight' has shape \(5, 2, 3, 3\), not \(4, 2, 3, 3\)"),
])
def test_a_plan_of_another_model_is_refused(model, batches, other, sentence):
    with pytest.raises(CalibrationError, match=rf"of another model, {sentence}: make it .*fb\.plan") as caught:
        calibrate(model, plan(other(), "w8a8"), batches)
    assert "\n" not in str(caught.value)


def test_a_plan_made_before_fold_is_refused():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    x = torch.randn(2, 2, 6, 6)
    model = capture(net, x)
    early = plan(model, "w8a8")
    simulation = calibrate(model, early, [x])
    fold(model)
    for use in (lambda: calibrate(model, early, [x]), lambda: simulation(x), lambda: lower(simulation)):
        with pytest.raises(CalibrationError, match=r"before fb\.fold|folded after it was planned") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_what_wants_folding_first_is_told_so():
    class Ramp(nn.Module):
        def forward(self, x):
            return x + torch.arange(8)

    with pytest.raises(UnsupportedError, match=r"arange .*: it reads no input; fold the model first"):
        plan(capture(Ramp(), torch.randn(2, 8)), "w8a8")

"""Data-free quantization: equalization, absorption and bias correction against golden values and on networks."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_cases import batches, error, network, outputs, simulation
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import RepairError
from fewbits.fold.fold import fold
from fewbits.graph.model import Normal, Visitor
from fewbits.lower.lower import lower
from fewbits.optimize.absorb import absorb_high_biases, absorbed, move
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.optimize.bias_correction import correct_biases, correct_biases_without_data, matching_shift, shift
from fewbits.optimize.chains import chains, columns, rescale
from fewbits.optimize.equalize import equalize, ranges, scales
from fewbits.optimize.expectation import clipped_normal
from fewbits.optimize.layer import layers
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import SimulationVisitor


def close(got, wanted, rtol=1e-6):
    np.testing.assert_allclose(np.asarray(got, np.float64), wanted, rtol=rtol, atol=1e-15)


def two_layers(values):
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    for tensor, key in ((net[0].weight, "W1"), (net[0].bias, "b1"), (net[2].weight, "W2")):
        tensor.data = torch.tensor(values[key], dtype=torch.float64)
    net[2].bias.data = torch.tensor(values.get("b2", [0.0, 0.0]), dtype=torch.float64)
    return capture(net, torch.zeros(2, 2, dtype=torch.float64))


def test_golden_equalization(golden):
    wanted = golden("dfq")["cle"]
    model = two_layers(wanted)
    chain, = chains(model)
    first, second = ranges(model, chain)
    close(first, wanted["r1"])
    close(second, wanted["r2"])
    close(scales(first, second), wanted["s"])
    rescale(model, chain, scales(first, second))
    for name, key in (("0.weight", "W1_eq"), ("0.bias", "b1_eq"), ("2.weight", "W2_eq")):
        close(model.tensor(name).detach(), wanted[key])
    close(ranges(model, chain)[0], wanted["equalized_range"])
    close(ranges(model, chain)[1], wanted["equalized_range"])
    close(model(torch.tensor([wanted["x"]] * 2, dtype=torch.float64))[0].detach(), wanted["y"])


def test_golden_absorption(golden):
    wanted = golden("dfq")["bias_absorb"]
    c = absorbed(Normal(*(torch.tensor(wanted[key], dtype=torch.float64) for key in ("beta", "gamma"))))
    close(c, wanted["c"])
    model = two_layers(wanted | {"W1": np.ones((3, 2)).tolist()})
    move(model, chains(model)[0], c)
    close(model.tensor("0.bias").detach(), wanted["b1_new"])
    close(model.tensor("2.bias").detach(), wanted["b2_new"])


def test_golden_expectation_and_correction(golden):
    wanted = golden("dfq")["expected_relu_of_normal"]
    mean, std = (torch.tensor(wanted[key], dtype=torch.float64) for key in ("beta", "gamma"))
    close(clipped_normal(Normal(mean, std), 0.0, math.inf).mean, wanted["E"])
    example = golden("dfq")["bias_correction_example"]
    sim = simulation()
    layer = next(layer for layer in layers(sim) if layer.groups == 1)
    difference = torch.tensor(example["W_q"], dtype=torch.float64) - torch.tensor(example["W"], dtype=torch.float64)
    close(shift(layer, difference, torch.tensor(example["E_x"], dtype=torch.float64)), example["correction"])
    close(np.array(example["b"]) - np.array(example["correction"]), example["b_new"])


@pytest.mark.parametrize(("low", "high"), [(0, np.inf), (0, 6), (-1, 1), (-np.inf, 2)])
def test_clipped_normal_against_samples(low, high):
    normal = Normal(torch.tensor([1.5, -0.3, 5.0, 2.0]).double(), torch.tensor([1.0, 2.0, 3.0, 0.0]).double())
    noise = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0)).double()
    samples = (normal.mean + normal.std * noise).clamp(low, high)
    got = clipped_normal(normal, low, high)
    np.testing.assert_allclose(got.mean, samples.mean(0), atol=0.02)
    np.testing.assert_allclose(got.std, samples.std(0), atol=0.02)


def test_chains_are_found_where_a_channel_has_one_way():
    model = fold(capture(network(), batches()[0][:2]))
    found = [(chain.first["weight"].name, chain.second["weight"].name) for chain in chains(model)]
    assert found == [("depthwise.0.weight", "point.0.weight"), ("grouped.0.weight", "head.1.weight"),
                     ("head.1.weight", "head.3.weight")]


@pytest.mark.parametrize("seed", range(3))
def test_the_float_model_computes_the_same_and_ranges_are_equal(seed):
    sim = simulation(seed=seed)
    truth = outputs(sim.reference)
    even = equalize(sim, batches(), even_if_worse=True)
    torch.testing.assert_close(outputs(even.reference), truth, rtol=1e-4, atol=1e-4)
    for chain in chains(even.model):
        first, second = ranges(even.model, chain)
        close(first, second, rtol=1e-4)


def scrambled(net):
    """The same function with its channels scaled by random powers of ten."""
    model = fold(capture(net, batches()[0][:2]))
    generator = torch.Generator().manual_seed(5)
    for chain in chains(model):
        channels = model.tensor(chain.first["weight"].name).shape[0]
        rescale(model, chain, 10 ** torch.empty(channels).uniform_(-2, 2, generator=generator).double())
    return model


def slopes():
    """A PReLU of eight slopes, a negative one and 0 among them."""
    layer = nn.PReLU(8)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.25, -0.5, 0.0, 1.5, 0.1, 0.7, -0.1, 1.0]))
    return layer


@pytest.mark.parametrize("activation", [nn.PReLU, slopes, partial(nn.LeakyReLU, 0.2)])
def test_chains_lead_through_slopes_below_zero(activation):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), activation(), nn.Conv2d(8, 8, 3, groups=8), activation(),
                        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 8), activation(), nn.Linear(8, 4)).eval()
    truth = outputs(net)
    model = scrambled(net)
    assert len(chains(model)) == 3
    torch.testing.assert_close(outputs(model), truth, rtol=1e-4, atol=1e-4)
    before = calibrate(model, plan(model, "w8a8-per-tensor"), batches())
    after = equalize(before, batches())
    torch.testing.assert_close(outputs(after.reference), truth, rtol=1e-4, atol=1e-4)
    for chain in chains(after.model):
        close(*ranges(after.model, chain), rtol=1e-4)
    straight = fold(capture(net, batches()[0][:2]))
    unscrambled = calibrate(straight, plan(straight, "w8a8-per-tensor"), batches())
    assert error(before, truth) > 10 * error(unscrambled, truth)
    assert error(after, truth) < 1.26 * error(equalize(unscrambled, batches(), even_if_worse=True), truth)  # 1 dB
    lower(after)


def test_scrambled_channels_collapse_per_tensor_and_are_healed():
    truth = outputs(network())
    model = scrambled(network())
    before = calibrate(model, plan(model, "w8a8-per-tensor"), batches())
    after = equalize(before, batches())
    unscrambled = simulation("w8a8-per-tensor")
    assert error(before, truth) > 50 * error(unscrambled, truth)
    assert error(after, truth) < 1.26 * error(equalize(unscrambled, batches(), even_if_worse=True), truth)  # 1 dB


def test_relu6_ends_a_chain_unless_unbound():
    sim = simulation(activation=nn.ReLU6)
    truth = outputs(sim.reference)
    assert [c.first["weight"].name for c in chains(sim.model)] == []
    with pytest.raises(RepairError, match="no two layers"):
        equalize(sim, batches())
    even = equalize(sim, batches(), unbound=True, even_if_worse=True)
    assert len(chains(even.model)) >= 2
    torch.testing.assert_close(outputs(even.reference), truth, rtol=0.1, atol=0.1)
    lower(even)


def test_absorption_keeps_the_function_nearly():
    sim = simulation()
    truth = outputs(sim.reference)
    done = absorb_high_biases(sim, batches())
    moved = done.model.tensor("depthwise.0.bias") - sim.model.tensor("depthwise.0.bias")
    assert (moved < 0).any()
    assert float((outputs(done.reference) - truth).abs().max()) < 0.05 * float(truth.abs().max())
    lower(done)


def test_bias_correction_makes_the_means_right():
    sim = simulation()
    truth = outputs(sim.reference)
    done = correct_biases(sim, batches())
    before, after = ((outputs(s) - truth).mean(0).abs().max() for s in (sim, done))
    assert after < 0.05 * before
    assert error(done, truth) < error(sim, truth)
    assert any(site.because == "given by a repair" for site in done.plan.sites.values())
    lower(done)
    assert outputs(sim).equal(outputs(simulation()))


def test_bias_correction_at_few_bits_makes_the_means_behind_a_block_right():
    """Clipped and coarse activations: the means that count are those behind the addition and its ReLU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Residual().eval(), torch.randn(64, 4, 8, 8)
    model = fold(capture(net, x[:2]))
    recipe = Recipe.model_validate({"version": 1, "weights": {"format": "int4", "symmetric": True, "block": "channel"},
                                    "activations": {"format": "uint4", "symmetric": False, "block": "tensor",
                                                    "range": "percentile(99)"}})
    sim = calibrate(model, plan(model, recipe), [x])
    done = correct_biases(sim, [x[:40], x[40:]])
    truth = channel_means(sim.reference, x)
    before, after = channel_means(sim.model, x, sim), channel_means(done.model, x, done)
    step = done.accumulator_scale(done.model.graph.nodes[0])  # biases lie on a grid
    assert ((after["stem_relu"] - truth["stem_relu"]).abs() <= 0.51 * step).all()
    assert (after["relu"] - truth["relu"]).abs().max() < 0.3 * (before["relu"] - truth["relu"]).abs().max()
    with torch.no_grad():
        assert (done(x) - net(x)).square().sum() < (sim(x) - net(x)).square().sum()


def channel_means(model, x, simulation=None):
    """Of every value with channels, before its own quantizer."""
    means = {}

    class Recorder(Visitor if simulation is None else SimulationVisitor):
        def value(self, name, value):
            if value.ndim == 4:
                means[name] = value.mean((0, 2, 3))
            return super().value(name, value)

    with torch.no_grad():
        model.run({model.graph.inputs[0].name: x}, Recorder() if simulation is None else Recorder(simulation))
    return means


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = (nn.Conv2d(c, 6, 3, padding=1) for c in (4, 6, 6))
        self.head = nn.Linear(6, 3)
        self.stem_relu, self.middle, self.relu = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        x = self.stem_relu(self.stem(x))
        x = self.relu(self.second(self.middle(self.first(x))) + x)
        return self.head(x.mean((2, 3)))


@given(st.integers(0, 2**32 - 1), st.sampled_from([(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0), (-1.0, 1.0)]))
@settings(max_examples=40)
def test_the_shift_that_matches_means_against_bisection(seed, bounds):
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randn(3, 200, generator=generator).double() * 3
    got = wanted * torch.rand(3, 1, generator=generator) + torch.randn(3, 200, generator=generator)
    shift = matching_shift(got.split(80, 1), wanted.split(80, 1), *bounds)
    target = wanted.clamp(*bounds).mean(1)
    low, high = torch.full((3,), -50.0).double(), torch.full((3,), 50.0).double()
    for _ in range(100):
        middle = (low + high) / 2
        below = (got + middle[:, None]).clamp(*bounds).mean(1) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    np.testing.assert_allclose((got + shift[:, None]).clamp(*bounds).mean(1), target, atol=1e-5)
    np.testing.assert_allclose(shift, low, atol=1e-3)


def test_a_channel_that_is_always_cut_off_stays_as_it_is():
    got, wanted = torch.tensor([[-1.0, 2.0], [-1.0, 2.0]]), torch.tensor([[-3.0, -0.5], [-1.0, 1.0]])
    assert matching_shift([got], [wanted], 0.0, np.inf).tolist() == [0.0, -1.0]


def test_data_free_correction_is_near_the_empirical_one():
    sim = simulation()
    free, empirical = correct_biases_without_data(sim), correct_biases(sim, batches())
    name = "point.0.bias"
    moved = [s.model.tensor(name).detach() - sim.model.tensor(name).detach() for s in (free, empirical)]
    assert moved[0].abs().max() > 0
    same = sim.model.tensor("first.0.bias")
    assert free.model.tensor("first.0.bias").equal(same)  # nothing is known of the input
    lower(free)


def test_equalization_after_rounding_is_refused():
    sim = adaround(simulation(), batches(1), schedule=Schedule(iterations=2, rows=8), even_if_worse=True)
    with pytest.raises(RepairError, match="before"):
        equalize(sim, batches())


def test_columns_are_the_weights_of_a_channel():
    model = fold(capture(network(), batches()[0][:2]))
    for chain in chains(model):
        view = columns(model, chain)
        assert view.shape[0] * view.shape[2] == model.tensor(chain.first["weight"].name).shape[0]
        assert view.numel() == model.tensor(chain.second["weight"].name).numel()


def test_data_free_correction_takes_off_the_mean_error_of_each_sum():
    """b' = b − (W_q − W)·E[x], E[x] of the ReLU behind a batch norm by sampling what that says of its channels."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)).eval()
    norm = net[1]
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(64, 6)
    model = fold(capture(net, x))
    sim = calibrate(model, plan(model, "w4a8"), [x])
    done = correct_biases_without_data(sim)
    samples = norm.bias.detach().double() + norm.weight.detach().double().abs() * torch.randn(
        400_000, 8, generator=torch.Generator().manual_seed(1)).double()
    mean = samples.clamp(min=0).mean(0)
    weight = sim.reference.tensor("3.weight").detach()
    error = sim.quantizer("3.weight")(weight).double() - weight.double()
    wanted = net[3].bias.detach().double() - error @ mean
    moved = done.model.tensor("3.bias").detach().double()
    torch.testing.assert_close(moved, wanted, atol=0.02 * float((error @ mean).abs().max()), rtol=0)
    assert float((moved - net[3].bias.detach()).abs().max()) > 0.01, "else there was nothing to correct"

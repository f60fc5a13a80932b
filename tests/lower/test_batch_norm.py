"""Batch norm that stays live: it moves into scales and biases, or into thresholds, and no weight code changes."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import CaptureError, LoweringError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program import ops as op
from fewbits.program.reference import run
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.ledger import ledger
from fewbits.report.simulation_gap import simulation_gap
from fewbits.testing import differences

GAINS = st.one_of(st.just(0.0), st.floats(-3, 3), st.sampled_from([1e-30, -1e-30, 1e-8, -1e-4, 1e4]))


def network(gains=(), between=nn.ReLU):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(4)
        norm.running_mean.normal_(), norm.running_var.uniform_(0.3, 2)
        nn.init.uniform_(norm.weight, -1, 1), nn.init.normal_(norm.bias)
        if gains:
            norm.weight.data = torch.tensor(gains)
        last = nn.BatchNorm1d(3)
        last.running_mean.normal_(), nn.init.uniform_(last.weight, -1, 1)
        net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), norm, between(),
                            nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Hardtanh(),
                            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3), last)
        return net.eval(), torch.randn(8, 2, 6, 6)


def simulated(net, x, recipe="w8a8", **lines):
    model = fold(capture(net, x), norms="keep")
    if lines:
        recipe = Recipe.model_validate({"version": 1, "weights": {"format": "int8"}, "activations": {"format": "uint8"}}
                                       | lines)
    return calibrate(model, plan(model, recipe), [x])


def test_training_keeps_it_live_and_evaluation_its_statistics():
    net, x = network()
    simulation = simulated(net, x)
    before = simulation.model.tensor("1.running_mean").clone()
    simulation.train()
    simulation(x).sum().backward()
    assert not torch.equal(simulation.model.tensor("1.running_mean"), before)
    assert simulation.model.tensor("1.weight").grad.abs().sum() > 0
    simulation.eval()
    after = simulation.model.tensor("1.running_mean").clone()
    simulation(x)
    assert torch.equal(simulation.model.tensor("1.running_mean"), after)
    assert "0" not in simulation.plan.sites, "no quantizer stands between a convolution and its batch norm"


def test_simulation_and_program_agree():
    net, x = network()
    simulation = simulated(net, x)
    program = lower(simulation)
    gap = simulation_gap(program, simulation, [x])
    assert gap.largest <= 1
    assert gap.differing <= 2
    assert gap.outputs[0].relative < 1e-6
    assert not differences(program, {program.inputs[0]: x.numpy()})
    assert ledger(program, simulation.plan, simulation.model.graph).counts["integer"] == 3


@settings(max_examples=40)
@given(st.lists(GAINS, min_size=4, max_size=4))
def test_no_weight_code_changes_but_for_its_sign(gains):
    net, x = network(tuple(gains))
    simulation = simulated(net, x)
    codes = simulation.quantizer("0.weight").integers(net[0].weight.detach().numpy()).codes.astype(int)
    far = [abs(gain) < 1e-4 for gain in gains]
    try:
        program = lower(simulation)
    except LoweringError:
        assume(not any(far))  # an offset may lie too far for products so fine, never for others
        raise
    conv = next(node for node in program.nodes if isinstance(node, op.Conv))
    for got, before, gain in zip(conv.weight.codes.astype(int), codes, gains, strict=True):
        if gain == 0:
            assert not got.any()
        elif abs(gain) >= 1e-4:
            assert np.array_equal(got, np.sign(gain) * before)
        else:
            assert np.array_equal(np.abs(got), np.abs(before)) or not got.any()
    assert not differences(program, {program.inputs[0]: x.numpy()})


def test_a_code_without_an_opposite_is_refused_by_name():
    net, x = network((-1.0, 1.0, 1.0, 1.0))
    simulation = simulated(net, x, weights={"format": "int8", "scale": "full", "block": "tensor"})
    with torch.no_grad():
        weight = simulation.model.tensor("0.weight")
        weight[0, 0, 0, 0] = -simulation.quantizer("0.weight").scale.item() * 128
    with pytest.raises(LoweringError, match=r"0\.weight.*narrow"):
        lower(simulation)


@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_a_code_without_an_opposite_takes_one_bit_more(bits):
    net, x = network((-1.0, 1.0, 1.0, 1.0))
    simulation = simulated(net, x, weights={"format": f"int{bits}", "scale": "full", "block": "tensor"})
    with torch.no_grad():
        weight = simulation.model.tensor("0.weight")
        weight[0, 0, 0, 0] = -simulation.quantizer("0.weight").scale.item() * 2 ** (bits - 1)
    program = lower(simulation)
    conv = next(node for node in program.nodes if isinstance(node, op.Conv))
    assert str(conv.weight.encoding.format) == f"int{bits + 1}"
    assert conv.weight.codes.max() == 2 ** (bits - 1)
    gap = simulation_gap(program, simulation, [x])
    assert gap.largest <= 1
    assert not differences(program, {program.inputs[0]: x.numpy()})
    ledger(program, simulation.plan, simulation.model.graph)


class ReadTwice(nn.Module):
    """Batch norm before its activation, behind a pool, and behind sums that something else reads too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.before, self.pooled, self.shared = nn.BatchNorm2d(2), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.third, self.rows = nn.Linear(4, 3), nn.BatchNorm1d(9)

    def forward(self, x):
        x = nn.functional.hardtanh(self.pooled(torch.max_pool2d(self.first(self.before(x).relu()), 2)))
        y = self.second(x)
        return self.rows(self.third((self.shared(y) + y).flatten(2).transpose(1, 2))).mean(1)


def read_twice(recipe="w8a8", **lines):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = ReadTwice(), torch.randn(8, 2, 6, 6)
        for norm in (net.before, net.pooled, net.shared, net.rows):
            nn.init.uniform_(norm.weight, -1, 1), nn.init.normal_(norm.bias)
        net(x)
    return net.eval(), x, simulated(net.eval(), x, recipe, **lines)


def test_batch_norm_of_its_own_is_a_table_per_channel():
    net, x, simulation = read_twice()
    program = lower(simulation)
    tables = {node.name: node for node in program.nodes if isinstance(node, op.Table)}
    assert len(tables) == 4
    assert {len(table.table) for table in tables.values()} == {2, 4, 9}
    assert not differences(program, {program.inputs[0]: x.numpy()})
    gap = simulation_gap(program, simulation, [x])
    assert gap.differing <= 1
    assert ledger(program, simulation.plan, simulation.model.graph).floating == 0
    with torch.no_grad():
        assert (simulation(x) - net(x)).abs().max() < 0.05 * net(x).abs().max()


def test_signs_behind_batch_norm_of_its_own():
    """The order of Courbariaux et al. 2016: convolution, pool, batch norm, sign."""
    _, x, simulation = read_twice(rules=[
        {"op": "batch_norm", "module": "pooled", "activations": {"format": "binary", "scale": "unit"}}])
    program = lower(simulation)
    table = next(node for node in program.nodes if isinstance(node, op.Table) and len(node.table) == 4
                 and set(np.unique(node.table)) <= {0, 2})
    assert set(np.unique(program_codes(program, x, table.name))) == {0, 2}
    assert not differences(program, {program.inputs[0]: x.numpy()})
    assert simulation_gap(program, simulation, [x]).differing <= 1


def test_without_statistics_nothing_stands_still():
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(CaptureError, match="track_running_stats"):
        capture(net, torch.randn(2, 2, 4, 4))


@pytest.mark.parametrize("gains", [(1e-8, -1e-9, 1.0, 1e-6), (1e-12, -1e-12, 1e-5, 0.0)])
def test_offsets_too_far_from_their_sums_are_simulated_as_they_run(gains):
    net, x = network(gains)
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([1.0, 2.0, 0.5, 0.3]))  # not hidden by the ReLU
    simulation = simulated(net, x)
    assert simulation_gap(lower(simulation), simulation, [x]).differing <= 2


BINARY = {"weights": {"format": "binary"},
          "rules": [{"module": "4", "activations": {"format": "binary", "scale": "unit"}},
                    {"module": "1", "activations": {"format": "binary", "scale": "unit"}}]}


def test_a_sign_behind_batch_norm_is_a_threshold_per_channel():
    net, x = network((1.5, -0.7, 0.0, 2.0), nn.Identity)
    simulation = simulated(net, x, **BINARY)
    program = lower(simulation)
    first = next(node for node in program.nodes if isinstance(node, op.Threshold))
    assert first.thresholds.shape == (4, 1)
    assert first.direction.tolist() == [1, -1, 1, 1]
    assert first.levels.tolist() == [0, 2]
    assert int(program.encoding(first.name).zero_point) == 1
    signs = {0, 2}
    codes = program_codes(program, x, first.name)
    assert set(np.unique(codes)) == signs
    constant = codes[:, 2]  # a gain of 0 leaves the sign of the shift
    assert len(np.unique(constant)) == 1
    assert constant.flat[0] == (2 if net[1].bias[2] >= 0 else 0)
    assert simulation_gap(program, simulation, [x]).differing <= 2
    assert not differences(program, {program.inputs[0]: x.numpy()})
    assert ledger(program, simulation.plan, simulation.model.graph).floating == 0


def program_codes(program, x, name):
    return run(program, {program.inputs[0]: x.numpy()}, [name])[name]


def test_binary_padding_is_the_number_zero():
    """The second convolution pads ±1 with 0: the sums at its border have fewer terms."""
    net, x = network(between=nn.Identity)
    simulation = simulated(net, x, **BINARY)
    program = lower(simulation)
    convs = [node for node in program.nodes if isinstance(node, op.Conv)]
    first = program.encoding(convs[1].input).decode(program_codes(program, x, convs[1].input))
    weight = convs[1].weight.dequantize()
    expected = nn.functional.conv2d(torch.from_numpy(first), torch.from_numpy(weight), padding=1).numpy()
    sums = program.encoding(convs[1].name).decode(program_codes(program, x, convs[1].name))
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)

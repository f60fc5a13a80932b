"""Methods that freeze, draw or take logarithms, against slow independent readings of their papers' formulas, with cases
worked by hand."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizers import activation_quantizer, gradient, weight_quantizer

from fewbits.numerics.formats import parse
from fewbits.train.lognet import log_quantized
from fewbits.train.stochastic import between_neighbours

numbers = st.floats(-8, 8, width=32)


def slow_inq(weights, bits):
    """n1 = ⌊log2(4 max / 3)⌋, n2 = n1 + 1 − 2^(b−1) / 2; |w| goes to β where (α + β) / 2 ≤ |w| < 3 β / 2, α below β."""
    largest = max(abs(w) for w in weights)
    n1 = math.floor(math.log2(4 * largest / 3) + 1e-12)
    n2 = n1 + 1 - 2 ** (bits - 1) // 2
    levels = [0.0, *(2.0**e for e in range(n2, n1 + 1))]
    quantized = []
    for w in weights:
        found = 0.0
        for below, level in pairwise(levels):
            if (below + level) / 2 <= abs(w):
                found = level
        quantized.append(math.copysign(found, w))
    return quantized, 2.0**n2


def as_stored(value, lowest):
    """An 8-bit integer has no 128 steps."""
    return max(-127, min(127, value / lowest)) * lowest


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@settings(max_examples=60)
@given(weights=st.lists(numbers, min_size=2, max_size=24).filter(lambda w: max(map(abs, w)) > 1e-3))
def test_incremental_powers_are_the_papers(bits, weights):
    weight = torch.tensor(weights)
    quantizer = weight_quantizer("inq", f"inq-{bits}", weight)
    quantizer.eval()
    wanted, lowest = slow_inq(weight.tolist(), bits)
    assert quantizer(weight).tolist() == [as_stored(value, lowest) for value in wanted]


@pytest.mark.parametrize("name", ["W_A", "W_B"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_incremental_powers_are_the_golden_ones(golden, name, bits):
    section = golden("low_bit_methods")[name]
    weight = torch.tensor(section["input"])
    quantizer = weight_quantizer("inq", f"inq-{bits}", weight)
    quantizer.eval()
    wanted = section[f"inq_b{bits}"]
    expected = [[as_stored(value, 2.0 ** wanted["n2"]) for value in row] for row in wanted["q"]]
    assert quantizer(weight).tolist() == expected


def test_the_largest_weights_are_frozen_first(golden):
    section = golden("low_bit_methods")["W_A"]
    weight = torch.tensor(section["input"])
    quantizer = weight_quantizer("inq", "inq-5", weight)
    parameter = weight.clone()
    quantizer.progress(0.0, parameter)
    mask = torch.tensor(section["inq_first_group_50pct"]["mask_quantized"]).bool()
    assert torch.equal(quantizer.frozen != -128, mask)
    assert torch.equal(parameter[~mask], weight[~mask])
    assert torch.equal(quantizer(parameter).detach(), parameter), "free weights are float, frozen ones their codes"
    _, slope = gradient(quantizer, parameter)
    assert torch.equal(slope, (~mask).float())


def test_portions_follow_the_training_and_stay():
    """By hand: of 8 weights 4, 6, 7 and 8 are frozen in the four quarters; a step that moves them is undone."""
    weight = torch.tensor([1.0, -0.9, 0.8, 0.7, -0.6, 0.5, 0.2, 0.1])
    quantizer, parameter, counts = weight_quantizer("inq", "inq-4", weight), weight.clone(), []
    for done in (0.0, 0.1, 0.25, 0.5, 0.74, 0.75, 0.99):
        quantizer.progress(done, parameter)
        counts.append(int((quantizer.frozen != -128).sum()))
        frozen = quantizer.frozen != -128
        before = parameter.clone()
        parameter += 0.01
        quantizer.after_step(parameter)
        assert torch.equal(parameter[frozen], before[frozen])
        torch.testing.assert_close(parameter[~frozen], before[~frozen] + 0.01)
    assert counts == [4, 4, 6, 7, 7, 8, 8]
    # n1 = ⌊log2(4/3)⌋ = 0, so that 4 bits hold 1/8 to 1; (1/2 + 1)/2 = 0.75 is where 1/2 ends.
    assert quantizer.integers(parameter.numpy()).codes[:4].tolist() == [8, -8, 8, 4]
    assert quantizer.scale.item() == 0.125


def test_frozen_portions_come_back_with_the_state():
    weight = torch.linspace(-1, 1, 16)
    quantizer, parameter = weight_quantizer("inq", "inq-3", weight), weight.clone()
    quantizer.progress(0.3, parameter)
    again = weight_quantizer("inq", "inq-3", weight)
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again(parameter), quantizer(parameter))
    again.progress(0.3, parameter)
    assert torch.equal(again.frozen, quantizer.frozen)


def test_half_wave_levels_are_the_golden_ones(golden):
    section = golden("low_bit_methods")["hwgq_2bit_uniform"]
    x = torch.tensor(section["x"])
    quantizer = activation_quantizer("hwgq", "hwgq2")
    y, mask = gradient(quantizer, x)
    torch.testing.assert_close(y, torch.tensor(section["q"]), rtol=1e-6, atol=0)
    assert mask.tolist() == section["grad_mask"]


@pytest.mark.parametrize(("method", "above"), [("hwgq-vanilla", lambda x: 1.0), ("hwgq", lambda x: 0.0),
                                               ("hwgq-log", lambda x: 1 / (x - 0.614))])
def test_the_three_backward_functions(method, above):
    """Eq. 9 to 11 written out; by hand: log-tailed at 2.614, one above q_m = 1.614, has slope 1 / 2."""
    x = torch.tensor([-3.0, -0.0, 0.0, 1e-3, 1.0, 1.614, 1.7, 2.614, 50.0])
    _, slope = gradient(activation_quantizer(method, "hwgq2"), x)
    highest = torch.tensor(1.614)
    expected = [0.0 if v <= 0 else 1.0 if v <= highest else above(float(v)) for v in x]
    torch.testing.assert_close(slope, torch.tensor(expected), rtol=1e-5, atol=0)


@settings(max_examples=60)
@given(values=st.lists(numbers, min_size=1, max_size=12), bits=st.integers(3, 6))
def test_log_gradients_round_the_exponent(values, bits):
    largest = max(abs(v) for v in values)
    got = log_quantized(torch.tensor(values), bits)
    if not largest:
        assert not got.any()
        return
    top = math.ceil(math.log2(largest))
    for v, q in zip(values, got.tolist(), strict=True):
        if v == 0:
            assert q == 0
            continue
        exponent = max(top - (2 ** (bits - 1) - 2), min(top, round(math.log2(abs(v)))))
        if abs(math.log2(abs(v)) % 1 - 0.5) > 1e-9:
            assert q == math.copysign(2.0**exponent, v)


def test_log_gradients_by_hand():
    """Largest 3, so that exponents end at 2; √2 · 2 = 2.83 is where 2 ends and 4 begins; 3 bits hold 4, 2, 1."""
    assert log_quantized(torch.tensor([3.0, -2.8, 2.0, 0.01, 0.0]), 3).tolist() == [4.0, -2.0, 2.0, 1.0, 0.0]
    assert log_quantized(torch.tensor([4.0, 0.3]), 4).tolist() == [4.0, 0.25]


def test_log_gradients_flow_through_the_site():
    quantizer = activation_quantizer("log", "ulog2-4", 4)
    x = torch.tensor([[0.1, 0.2, 0.9, 0.4]])
    upstream = torch.tensor([[1.0, 0.3, 0.02, 0.0]])
    _, slope = gradient(quantizer, x, upstream)
    assert torch.equal(slope, log_quantized(upstream, 4))
    quantizer.eval()
    _, slope = gradient(quantizer, x, upstream)
    assert torch.equal(slope, upstream)


@pytest.mark.parametrize(("bits", "wanted"), [(2, [-2, -1, -1, 0, 0, 0, 1, 1, 1]),
                                              (3, [-3, -3, -2, -1, 0, 1, 2, 3, 3])])
def test_linear_weights_by_hand(bits, wanted):
    """LinearQuant in steps of 2^(1−k), ties to even: with 2 bits -1 is code -2, and 1/2 the largest."""
    weight = torch.tensor([-0.8, -0.7, -0.5, -0.25, 0.0, 0.25, 0.4, 0.75, 3.0])
    quantizer = weight_quantizer("qnn", f"int{bits}", weight)
    assert quantizer.integers(weight.numpy()).codes.tolist() == wanted
    assert (quantizer(weight).detach() * 2 ** (bits - 1)).tolist() == wanted
    quantizer.after_step(weight)
    assert weight.max() == 1.0


def test_the_gradient_of_linear_weights():
    x = torch.tensor([-1.5, -1.0, -0.3, 0.0, 0.7, 1.0, 1.0001])
    _, slope = gradient(weight_quantizer("qnn", "int2", x), x, 0.3)
    torch.testing.assert_close(slope, 0.3 * (x.abs() <= 1).float())


def test_stochastic_rounding_by_hand():
    """0.3 lies 3/10 of the way from 0 to 1: draws below 0.3 go up. What lies outside takes the end."""
    x = torch.tensor([0.3, 0.3, 0.3, -0.75, -0.75, 5.0, -5.0, 1.0])
    draw = torch.tensor([0.29, 0.31, 0.9, 0.1, 0.5, 0.5, 0.5, 0.0])
    grid = torch.tensor([-2.0, -1.0, 0.0, 1.0])
    assert between_neighbours(x, grid, draw).tolist() == [1.0, 0.0, 0.0, 0.0, -1.0, 1.0, -2.0, 1.0]


@pytest.mark.parametrize("format", ["int4", "e4m3-finite-zero", "pow2-4"])
def test_stochastic_weights_are_right_on_average(format):
    """4000 draws: the mean is the clipped weight within 5 standard errors of a draw between two neighbours."""
    row = torch.linspace(-0.45, 0.45, 10)
    weight = row.repeat(4000, 1)
    quantizer = weight_quantizer("stochastic", format, weight)
    quantizer.scale.fill_(0.45 / max(parse(format).values()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = quantizer(weight).detach()
    grid = torch.tensor(parse(format).values()).double().unique() * float(quantizer.scale)
    for place, w in enumerate(row.double().clamp(grid[0], grid[-1]).tolist()):
        above = grid[grid >= w].min()
        below = grid[grid <= w].max()
        assert set(drawn[:, place].unique().tolist()) <= {float(above.float()), float(below.float())}
        spread = float(above - below) / 2 / 4000**0.5
        assert abs(float(drawn[:, place].double().mean()) - w) <= 5 * spread + 1e-6
    quantizer.eval()
    assert torch.equal(quantizer(weight), quantizer(weight)), "to the nearest after training"


def test_the_range_of_stochastic_weights_stays():
    """Weights grow past a power of two, and the point stays where it was: codes -2 to 1 of 1/16, no other number."""
    weight = torch.tensor([[-0.11, -0.05, 0.02, 0.06]])
    quantizer = weight_quantizer("stochastic", "int2", weight)
    quantizer.scale.fill_(1 / 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = torch.cat([quantizer(4 * weight) for _ in range(40)])
    assert quantizer.scale.item() == 1 / 16
    assert drawn[:, 0].unique().tolist() == [-2 / 16]
    assert drawn[:, 2].unique().tolist() == [1 / 16], "0.08 lies beyond the largest code"
    quantizer.eval()
    assert quantizer(4 * weight).tolist() == [[-2 / 16, -2 / 16, 1 / 16, 1 / 16]]

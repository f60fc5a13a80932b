"""Learned ranges: no decay but where a paper has one, a rate of their own, and the paper's path under any optimizer."""

import pytest
import torch
from quantizers import activation_quantizer, weight_quantizer
from torch import nn

from fewbits.errors import DataError
from fewbits.train.fit import Adam, Nesterov, WarmedCosine
from fewbits.train.initial_step import least_squares_step, paper_step
from fewbits.train.kept import called
from fewbits.train.parameters import parameter_groups

WEIGHT = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, *quantizers):
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())
        self.quantizers = nn.ModuleList(quantizers)


def test_decay_works_on_weights_and_on_what_a_paper_says():
    steps, bound = weight_quantizer("lsq", "int4", WEIGHT), activation_quantizer("pact", "uint4")
    net = Net(steps, bound)
    weights, ranges = parameter_groups(net)
    assert [id(p) for p in weights["params"]] == [id(net.weight), id(bound.bound)]
    assert [id(p) for p in ranges["params"]] == [id(steps.factor)]
    optimizer = Nesterov(0.1, momentum=0.5, weight_decay=0.5)(parameter_groups(net))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = steps.factor.clone(), bound.bound.clone()
    optimizer.step()
    assert torch.equal(steps.factor, before[0])
    assert bound.bound < before[1]
    assert net.weight.abs().sum() < WEIGHT.abs().sum()


@pytest.mark.parametrize("make", [Adam(0.01, range_rate=0.1), Nesterov(0.01, range_rate=0.1)])
def test_ranges_have_a_rate_of_their_own(make):
    rates = [group["lr"] for group in make(parameter_groups(Net(weight_quantizer("lsq", "int4", WEIGHT)))).param_groups]
    assert rates == pytest.approx([0.01, 0.001])
    assert [group["lr"] for group in make([nn.Parameter(WEIGHT)]).param_groups] == [0.01]


def test_a_network_without_ranges_has_one_group():
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    assert [[id(p) for p in group["params"]] for group in parameter_groups(net)] == [[id(net.weight)]]


def test_warm_up():
    optimizer = torch.optim.SGD([nn.Parameter(WEIGHT)], 1.0)
    schedule, rates = WarmedCosine(0.25)(optimizer, 8), []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    half = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * n / 8)).item()) for n in range(8)]
    assert rates == pytest.approx([0.5 * half[0], *half[1:]])
    assert called(WarmedCosine(0.25)) != called(WarmedCosine(0.5)), "a checkpoint is of one of them"
    with pytest.raises(DataError, match="share of the steps from 0 to below 1, not 1"):
        WarmedCosine(1.0)


def written_out(weight, target, first, rate, steps, low, high):
    """Gradient descent of w and s as eq. 1 to 5 write it, number by number; gives s after each step. first: s. A first
    step of another size than the paper's changes by the share of it that the paper's would."""
    w, s, path = weight.reshape(-1).tolist(), first, []
    share = 1 / (len(w) * high) ** 0.5 * first / (2 * sum(map(abs, w)) / len(w) / high**0.5)
    for _ in range(steps):
        slope_s, moved = 0.0, []
        for number, wanted in zip(w, target.reshape(-1).tolist(), strict=True):
            v = number / s
            code = min(max(round(v), low), high)
            loss = code * s - wanted  # derivative of (v̂ − wanted)² / 2
            inside = low < v < high
            slope_s += loss * ((-v + round(v)) if inside else code)
            moved.append(number - rate * loss * inside)
        w, s = moved, s - rate * share * slope_s
        path.append(s)
    return path


@pytest.mark.parametrize(("low", "high", "format"), [(-8, 7, "int4"), (-2, 1, "int2"), (-127, 127, "int8-narrow")])
@pytest.mark.parametrize(("method", "first"), [("lsq-paper", lambda w, low, high: paper_step(w, high)),
                                               ("lsq", least_squares_step)])
def test_gradient_descent_moves_the_step_as_the_paper_does(method, first, low, high, format):
    weight = WEIGHT.double()
    target = 0.8 * weight.flip(0)
    quantizer, shadow = weight_quantizer(method, format, weight).double(), nn.Parameter(weight.clone())
    optimizer, path = torch.optim.SGD([shadow, quantizer.factor], 0.002), []
    for _ in range(12):
        loss = (quantizer(shadow) - target).square().sum() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        quantizer.settle()
        path.append(quantizer.scale.item())
    begun = float(first(weight.reshape(1, -1), low, high))
    assert path == pytest.approx(written_out(weight, target, begun, 0.002, 12, low, high), rel=1e-9)


def test_adam_changes_a_fine_step_by_a_share_of_it():
    for size in (1.0, 1e-3):
        quantizer = weight_quantizer("lsq", "int8", WEIGHT)
        optimizer = Adam(0.01)([quantizer.factor])
        (quantizer(size * WEIGHT) / size).square().sum().backward()
        first = quantizer.scale.item()
        optimizer.step()
        quantizer.settle()
        assert abs(quantizer.scale.item() / first - 1) == pytest.approx(0.01, rel=0.02)  # but for Adam's ε

"""Masks: how many they keep, which, and that training cannot undo them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fewbits.compress import prune
from fewbits.compress.masks import Masks
from fewbits.errors import RecipeError


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50)
@given(st.floats(0, 1), st.integers(1, 40))
def test_a_density_keeps_just_so_many_and_the_greatest(density: float, n: int) -> None:
    weight = weights(n).round(decimals=1)  # with ties
    mask = prune.by_density(weight, density)
    assert int(mask.sum()) == int(density * n + 0.5)
    if mask.any() and not mask.all():
        assert weight[mask].abs().min() >= weight[~mask].abs().max()


def test_the_gradual_schedule() -> None:
    densities = [prune.gradual(step, 10, 20, 0.1) for step in (0, 10, 15, 20, 99)]
    assert densities == pytest.approx([1, 1, 0.1 + 0.9 / 8, 0.1, 0.1])


@pytest.mark.parametrize("density", [-0.1, 1.1])
def test_a_density_is_a_share(density: float) -> None:
    with pytest.raises(RecipeError):
        prune.by_density(weights(3), density)


@pytest.mark.parametrize("make", [
    lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.1),
    lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True),
    lambda parameters: torch.optim.AdamW(parameters, 0.1, weight_decay=0.1)])
def test_no_optimizer_moves_a_pruned_weight(make) -> None:
    net = nn.Linear(6, 5)
    optimizer = make(net.parameters())

    def step() -> None:
        optimizer.zero_grad()
        net(weights(8, 6)).square().sum().backward()
        optimizer.step()

    step()  # momentum of before the pruning
    mask = prune.by_density(net.weight, 0.3)
    masks = Masks(net, {"weight": mask})
    masks.hold(optimizer)
    for _ in range(5):
        step()
        assert not net.weight[~mask].any()
    assert net.weight[mask].all()
    assert masks.density() == pytest.approx(0.3)
    masks.change({"weight": torch.ones_like(mask)})
    step()
    assert net.weight.all()


def test_weights_are_held_at_values_too() -> None:
    net, values = nn.Linear(6, 5), weights(5, 6)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    free = prune.by_density(net.weight, 0.5)
    masks = Masks(net, {"weight": free}, {"weight": values})
    masks.hold(optimizer)
    before = net.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        net(weights(8, 6)).square().sum().backward()
        optimizer.step()
        assert torch.equal(net.weight[~free], values[~free])
    assert (net.weight[free] != before[free]).all()
    masks.change({"weight": ~free}, {"weight": -values})
    assert torch.equal(net.weight[free], -values[free])


def test_a_mask_that_fits_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="'wight'"):
        Masks(nn.Linear(2, 2), {"wight": torch.ones(2, 2, dtype=torch.bool)})

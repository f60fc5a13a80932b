"""Masks: how many they keep, which, and that training cannot undo them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fewbits.compress import prune
from fewbits.compress.masks import Masks
from fewbits.compress.sensitivity import sensitivity
from fewbits.errors import RecipeError


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.integers(1, 40))
def test_a_density_keeps_just_so_many_and_the_greatest(density: float, n: int) -> None:
    weight = weights(n).round(decimals=1)  # with ties
    mask = prune.by_density(weight, density)
    assert int(mask.sum()) == int(density * n + 0.5)
    if mask.any() and not mask.all():
        assert weight[mask].abs().min() >= weight[~mask].abs().max()


def test_a_threshold_in_standard_deviations() -> None:
    weight = weights(100, 100)
    mask = prune.by_quality(weight, 1.0)
    assert torch.equal(mask, weight.abs() > weight.std(correction=0))
    assert 0.30 < mask.float().mean() < 0.34


def test_one_threshold_for_all_layers() -> None:
    layers = {"small": 0.1 * weights(30), "large": weights(30, seed=1)}
    masks = prune.across(layers, 0.5)
    assert sum(int(mask.sum()) for mask in masks.values()) == 30
    assert masks["large"].sum() > masks["small"].sum()


def test_n_of_m() -> None:
    weight = weights(6, 2, 4)
    mask = prune.n_of_m(weight, 2, 4)
    assert (mask.reshape(-1, 4).sum(1) == 2).all()
    groups, kept = weight.abs().reshape(-1, 4), mask.reshape(-1, 4)
    assert (groups.masked_fill(~kept, 9).amin(1) >= groups.masked_fill(kept, 0).amax(1)).all()
    with pytest.raises(RecipeError, match="rows of 8"):
        prune.n_of_m(weight, 2, 3)


def test_whole_channels() -> None:
    weight = weights(4, 3, 2, 2) * torch.tensor([1.0, 0.1, 2.0, 0.2]).reshape(4, 1, 1, 1)
    assert prune.channels(weight, 0.5).flatten(1).float().mean(1).tolist() == [1, 0, 1, 0]


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


def test_sensitivity_prunes_one_layer_at_a_time() -> None:
    net = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 2))
    before = [parameter.detach().clone() for parameter in net.parameters()]

    def zeros(model: nn.Module) -> float:
        return float(sum((parameter == 0).sum() for parameter in model.parameters()))

    assert sensitivity(net, (1.0, 0.5, 0.25), zeros) == {"0.weight": (0, 40, 60), "2.weight": (0, 8, 12)}
    assert all(torch.equal(one, other) for one, other in zip(before, net.parameters(), strict=True))
    with pytest.raises(ZeroDivisionError):
        sensitivity(net, (0.5,), lambda _: 1 / 0)
    assert torch.equal(before[0], net[0].weight)

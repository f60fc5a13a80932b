"""The flow on a toy: densities are reached, shared values are kept, and sharing by and by loses less than at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewbits.compress.flow import Progress, Settings, prune_and_retrain, share_and_retrain, tune_codebooks
from fewbits.errors import TrainingError
from fewbits.train.fit import Adam, Nesterov

BATCHES = 12


def learner() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 4))
        net = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 4))
        x = torch.randn(32 * BATCHES, 10)
        return net, x, teacher(4 * x).argmax(1)


def flow(settings: Settings):
    net, x, y = learner()

    def epochs(number: int):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(number))
        return [(x[rows], y[rows]) for rows in order.split(32)]

    masks = prune_and_retrain(net, epochs, settings, Progress())
    shared = share_and_retrain(net, epochs, settings, masks.masks)
    shared = tune_codebooks(net, shared, epochs, settings)
    return net, masks.masks, shared, F.cross_entropy(net(x), y).item()


SETTINGS = Settings({"0.weight": 0.5, "2.weight": 0.8}, {"0.weight": 3, "2.weight": 3}, prune_epochs=20, share_epochs=0,
                    tune_epochs=2, optimizer=Nesterov(0.05))


@pytest.mark.parametrize("settings", [
    SETTINGS, replace(SETTINGS, price=0.02, share_epochs=3),
    replace(SETTINGS, optimizer=Adam(1e-2), share_epochs=3, precision=torch.bfloat16)])
def test_what_is_shared_is_what_the_model_holds(settings: Settings) -> None:
    net, masks, shared, _ = flow(settings)
    for name, one in shared.items():
        weight = net.get_parameter(name).detach()
        np.testing.assert_array_equal(one.dense(), weight)
        assert weight.dtype == torch.float32
        assert torch.equal(masks[name].flatten().nonzero().squeeze(1), torch.from_numpy(one.positions))
        assert one.centroids.size <= 3
        assert masks[name].float().mean() == pytest.approx(settings.density[name], abs=0.01)


def test_sharing_by_and_by_loses_less_than_at_once() -> None:
    by_and_by = replace(SETTINGS, share_epochs=4, share_rate=1.0)
    assert flow(by_and_by)[3] < flow(SETTINGS)[3] - 0.01


def test_the_same_flow_gives_the_same_bytes() -> None:
    settings = replace(SETTINGS, share_epochs=2)
    (_, _, one, loss), (_, _, other, again) = flow(settings), flow(settings)
    assert loss == again
    assert all(np.array_equal(one[name].dense(), other[name].dense()) for name in one)


def test_a_loss_that_is_not_finite_ends_the_flow() -> None:
    net, x = nn.Sequential(nn.Linear(4, 3)), torch.full((2, 4), torch.nan)
    settings = Settings({"0.weight": 0.5}, {"0.weight": 2}, prune_epochs=1)
    with pytest.raises(TrainingError, match="the loss is nan at step 1 of epoch 1: the inputs hold NaN or Inf"):
        prune_and_retrain(net, lambda _: [(x, torch.tensor([0, 1]))], settings, Progress())

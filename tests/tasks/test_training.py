"""The training loop: it learns, repeats itself, keeps its random numbers to itself, and refuses bad data."""

import math

import pytest
import torch
from torch import nn

from fewbits.data.sets import load
from fewbits.data.shifted import shifted
from fewbits.data.split import Split
from fewbits.errors import DataError, TrainingError
from fewbits.tasks.digits_net import digits_net
from fewbits.tasks.training import initialised, train


def blobs(count: int = 64) -> Split:
    """Two classes of points, far apart."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 2
    return Split(points + 6.0 * labels[:, None], labels)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def test_digits_net_learns_the_digits() -> None:
    data = load("digits")
    model = initialised(digits_net, seed=0)
    losses = train(model, data.train, epochs=30, normalize=data.normalize, seed=0, quiet=True)
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 20
    assert not model.training
    batches = data.test.batches(449, data.normalize)
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    assert right / len(data.test) >= 0.975


def test_the_seed_decides_and_the_global_random_numbers_are_kept() -> None:
    def trained(seed: int) -> torch.Tensor:
        model = initialised(small, seed)
        train(model, blobs(), epochs=2, seed=seed, quiet=True)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    before = torch.get_rng_state()
    one = trained(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)  # what the caller draws in between has no influence
    assert torch.equal(one, trained(1))
    assert not torch.equal(one, trained(2))


def test_frozen_parameters_stay() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    train(model, blobs(), epochs=1, quiet=True)
    assert torch.equal(model[0].weight, before)


def test_a_loss_that_is_not_finite_is_refused_with_its_step() -> None:
    split = blobs()
    split.x[40, 0] = math.nan
    with pytest.raises(TrainingError, match=r"loss is nan at step [12] of epoch 1: the inputs hold NaN"):
        train(initialised(small, 0), split, epochs=1, quiet=True)
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) at step \d+ of epoch \d+.*lower the learning rate"):
        train(initialised(small, 0), blobs(), epochs=3, rate=1e30, quiet=True)


def test_refuses_what_cannot_be_trained() -> None:
    with pytest.raises(DataError, match=r"Training for 0 epochs does nothing"):
        train(small(), blobs(), epochs=0, quiet=True)
    with pytest.raises(DataError, match=r"This ReLU has no parameters to train"):
        train(nn.ReLU(), blobs(), epochs=1, quiet=True)
    with pytest.raises(DataError, match=r"A label is 1 and the network gives \[32, 1\]"):
        train(nn.Linear(2, 1), blobs(), epochs=1, quiet=True)
    with pytest.raises(DataError, match=r"no labels"):
        train(small(), Split(blobs().x), epochs=1, quiet=True)
    with pytest.raises(DataError, match=r"nothing says how to normalise"):
        train(small(), Split(blobs().x.to(torch.uint8), blobs().y), epochs=1, quiet=True)


def test_images_are_moved_whole() -> None:
    images = torch.zeros(3, 1, 8, 8)
    images[:, :, 4, 3] = 1.0
    seen = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        moved = shifted(images, 1, generator)
        assert moved.shape == images.shape
        assert torch.equal(moved[0], moved[2])
        assert moved.sum() == 3
        seen.add(tuple((moved[0, 0].nonzero()[0] - torch.tensor([4, 3])).tolist()))
    assert seen == {(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert shifted(images, 0, generator) is images
    assert torch.equal(shifted(torch.arange(16.0).reshape(1, 1, 4, 4) // 4, 1, torch.Generator().manual_seed(1))[
        0, 0, 1:3, 0].diff(), torch.tensor([1.0]))


def test_training_on_moved_images_repeats_itself() -> None:
    data = load("digits")
    nets = [initialised(digits_net, seed=0) for _ in range(3)]
    for net, shift in zip(nets, (1, 1, 0), strict=True):
        train(net, data.train.take(200), epochs=1, normalize=data.normalize, shift=shift, quiet=True)
    one, same, other = (next(net.parameters()) for net in nets)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)

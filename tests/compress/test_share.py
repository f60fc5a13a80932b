"""Sharing: the golden example, groups, zeros apart, training of codebooks, and bits counted."""

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.compress.huffman import code_lengths, entropy
from fewbits.compress.share import constrained, reassigned, refresh, share, stored_ratio
from fewbits.compress.tune import Codebooks, summed_step
from fewbits.errors import EncodingError, RecipeError
from fewbits.numerics import affine
from fewbits.numerics.formats import Int
from fewbits.ranges.scale import scale_and_zero_point
from fewbits.train.fit import Nesterov, fit


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_the_golden_example(golden) -> None:
    expected = golden("kmeans_4x4")
    shared = share(np.array(expected["input"], np.float32), 4)
    np.testing.assert_array_equal(shared.codes.reshape(4, 4), expected["labels"])
    np.testing.assert_allclose(shared.dense(), expected["reconstructed"], rtol=1e-6, atol=1e-7)
    assert stored_ratio(16, 4) == expected["storage"]["ratio"] == 3.2
    assert expected["storage"]["fp32_bits"] / stored_ratio(16, 4) == 160


def test_the_golden_example_in_four_even_steps_is_worse(golden) -> None:
    expected = golden("kmeans_4x4")
    weight = np.array(expected["input"])
    scale, zero = scale_and_zero_point(weight.min(), weight.max(), Int(2), symmetric=False)
    even = affine.decode(affine.encode(weight, scale, zero, -2, 1), scale, zero)
    squared = float(((weight - even) ** 2).sum())
    assert squared == pytest.approx(expected["affine_2bit_sse_for_comparison"], rel=1e-6)
    assert squared > expected["wcss"]


def test_golden_training_of_the_codebook(golden) -> None:
    section = golden("kmeans_4x4")
    expected = section["codebook_training"]
    shared = share(np.array(section["input"], np.float32), 4).with_centroids(np.array(expected["start_centroids"]))
    stepped = summed_step(shared, np.array(expected["gradient"]), expected["lr"])
    np.testing.assert_allclose(stepped.centroids[0], expected["new_centroids"], rtol=1e-6)

    net = nn.Linear(4, 4, bias=False)
    books = Codebooks(net, {"weight": shared})
    (books.weights()["weight"] * torch.tensor(expected["gradient"])).sum().backward()
    assert books.centroids[0].grad is not None
    np.testing.assert_allclose(books.centroids[0].grad, expected["grad_per_centroid"], rtol=1e-6)

    refreshed = section["lab7_centroid_refresh"]
    again = refresh(shared, np.array(refreshed["weights_after_step"]))
    np.testing.assert_allclose(again.centroids[0], refreshed["new_centroids"], rtol=1e-6)
    np.testing.assert_array_equal(again.codes, shared.codes)


@pytest.mark.parametrize("group", [None, 12, 4])
def test_groups_have_codebooks_of_their_own(group: int | None) -> None:
    weight = normal(6, 12) * np.arange(1, 7, dtype=np.float32)[:, None]
    shared = share(weight, 4, group=group)
    assert shared.centroids.shape == (72 // (group or 72), 4)
    flat, dense = weight.reshape(-1, group or 72), shared.dense().reshape(-1, group or 72)
    for row, centroids, values in zip(dense, shared.centroids, flat, strict=True):
        nearest = centroids[np.abs(values[:, None] - centroids).argmin(1)]
        np.testing.assert_array_equal(row, nearest)
    table = np.concatenate(([0], shared.centroids.reshape(-1)))
    np.testing.assert_array_equal(table[shared.table_index()], shared.dense())


def test_pruned_zeros_are_no_cluster() -> None:
    weight = normal(10, 30)
    mask = np.abs(weight) > 1
    shared = share(weight * mask, 2, mask=mask)
    assert (np.abs(shared.centroids) > 1).all()
    np.testing.assert_array_equal(shared.dense() != 0, mask)


def test_empty_and_all_zero_weights() -> None:
    assert share(normal(0, 3), 4).dense().shape == (0, 3)
    nothing = share(np.zeros((3, 4), np.float32), 4, mask=np.zeros((3, 4), bool))
    assert not nothing.dense().any()
    assert nothing.dense().shape == (3, 4)


@pytest.mark.parametrize("keywords", [{"k": 0}, {"k": 257}, {"k": 4, "group": 5}])
def test_bad_requests_are_refused(keywords) -> None:
    with pytest.raises(EncodingError):
        share(normal(4, 3), **keywords)


def test_counting_bits_beats_plain_sharing_at_equal_entropy() -> None:
    k = 8
    weight = np.random.default_rng(1).laplace(size=4000).astype(np.float32)
    plain = share(weight, k)

    def point(shared):
        return entropy(shared.counts()) / weight.size, float(((weight - shared.dense()) ** 2).mean())

    bits, error = point(plain)
    reached = [point(constrained(weight, 64, price)) for price in np.geomspace(0.01, 0.1, 12)]
    assert min(e for b, e in reached if b <= bits) < 0.85 * error


def test_fine_tuning_moves_centroids_only_and_helps() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(64, 8)
    y = net(x).argmax(1)
    shared = {name: share(p.detach().numpy(), 3) for name, p in net.named_parameters() if p.ndim == 2}
    for mean in (False, True):
        books = Codebooks(net, shared, mean=mean)
        losses = fit(books, [(x, y)], epochs=30, optimizer=Nesterov(0.5 if mean else 0.01, 0.5, 0), quiet=True)
        assert losses[-1] < losses[0]
        for name, one in books.shared().items():
            np.testing.assert_array_equal(one.codes, shared[name].codes)
            np.testing.assert_array_equal(one.dense(), books.weights()[name].detach())
    books.write()
    assert len(net[0].weight.unique()) <= 3
    with pytest.raises(RecipeError):
        Codebooks(net, {"no.weight": shared["0.weight"]})


def test_reassigning_keeps_the_centroids_and_counts_bits() -> None:
    weight = np.random.default_rng(2).laplace(size=(30, 40)).astype(np.float32)
    shared = constrained(weight, 16, 0.05)
    moved = weight + 0.1 * normal(30, 40, seed=3)
    free, paid = reassigned(shared, moved, 0.0), reassigned(shared, moved, 0.05)
    np.testing.assert_array_equal(free.centroids, shared.centroids)
    distances = np.abs(moved.astype(np.float64).reshape(-1, 1) - shared.centroids)
    np.testing.assert_array_equal(free.codes, distances.argmin(1))
    assert entropy(paid.counts()) < entropy(free.counts())
    lengths = code_lengths(np.maximum(shared.counts(), 1))
    np.testing.assert_array_equal(paid.codes, (distances**2 + 0.05 * lengths).argmin(1))

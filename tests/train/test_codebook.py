"""Codebooks that learn in a Simulation: the golden example, against `compress`, and what reaches the program."""

from functools import partial

import numpy as np
import pytest
import torch
from quantizers import ready
from torch import nn

import fewbits as fb
from fewbits.compress.share import refresh, share
from fewbits.compress.tune import summed_step
from fewbits.errors import EncodingError
from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.formats import parse
from fewbits.program import ops as nodes
from fewbits.quant.plan import Site
from fewbits.quant.recipe import Recipe
from fewbits.quant.spec import Spec
from fewbits.testing import differences
from fewbits.train.codebook import CODEBOOK_STARTS, Codebook, RefreshedCodebook


def quantizer(weight: torch.Tensor, k: int, kind=Codebook, block=TENSOR) -> Codebook:
    return ready(kind(Site("w", "weight", tuple(weight.shape), Spec(parse("int8"), True, block), "test"), k))


def rounded(centroids: np.ndarray) -> np.ndarray:
    """To whole 127ths of the largest magnitude of each row, in float32 as the quantizer does."""
    centroids = np.asarray(centroids, np.float32)
    scale = np.abs(centroids).max(-1, keepdims=True) / np.float32(127)
    return np.rint(centroids / scale) * scale


def test_golden_summed_gradients_and_mean_refresh(golden) -> None:
    section = golden("kmeans_4x4")
    weight = torch.tensor(section["input"])
    weight[weight == 0] = 1e-9  # the example has no pruned weights, and an exact zero would be taken for one
    wanted = section["codebook_training"]
    one = quantizer(weight, 4)
    one(weight)
    np.testing.assert_array_equal(one.index.numpy() - 1, section["labels"])
    with torch.no_grad():
        one.centroids.copy_(torch.tensor(wanted["start_centroids"])[None])
    (one(weight) * torch.tensor(wanted["gradient"])).sum().backward()
    assert one.centroids.grad is not None
    np.testing.assert_allclose(one.centroids.grad[0], wanted["grad_per_centroid"], rtol=1e-6)

    wanted = section["lab7_centroid_refresh"]
    one = quantizer(weight, 4, RefreshedCodebook)
    one(weight)
    shadow = nn.Parameter(torch.tensor(wanted["weights_after_step"]))
    one.after_step(shadow)
    np.testing.assert_allclose(one.centroids[0].detach(), wanted["new_centroids"], rtol=1e-6)
    np.testing.assert_allclose(shadow.detach(), np.array(wanted["new_centroids"])[section["labels"]], rtol=1e-6)


@pytest.mark.parametrize("block", [TENSOR, CHANNEL])
def test_it_is_the_codebook_of_compress_and_zeros_stay(block) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 20)).astype(np.float32) * np.arange(1, 7, dtype=np.float32)[:, None]
    mask = rng.random(weight.shape) < 0.6
    weight *= mask
    group = 20 if block == CHANNEL else None
    shared = share(weight, 4, mask=mask, group=group)
    expected = shared.with_centroids(rounded(shared.centroids)).dense()
    upstream = rng.standard_normal(weight.shape).astype(np.float32)

    one = quantizer(torch.from_numpy(weight), 4, block=block)
    result = one(torch.from_numpy(weight))
    np.testing.assert_array_equal(result.detach(), expected)
    assert not result[torch.from_numpy(~mask)].any()
    np.testing.assert_array_equal(one.integers(weight).dequantize(), expected)
    (result * torch.from_numpy(upstream)).sum().backward()
    stepped = summed_step(shared, upstream, 0.1).centroids
    assert one.centroids.grad is not None
    np.testing.assert_allclose(one.centroids.detach() - 0.1 * one.centroids.grad, stepped, rtol=1e-5, atol=1e-6)

    again, shadow = quantizer(torch.from_numpy(weight), 4, RefreshedCodebook, block), nn.Parameter(
        torch.from_numpy(shared.dense()))
    again(shadow)
    with torch.no_grad():
        shadow -= 0.1 * torch.from_numpy(upstream)
    wanted = refresh(shared, shadow.detach().numpy())
    again.after_step(shadow)
    np.testing.assert_allclose(again.centroids.detach(), wanted.centroids, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(shadow.detach(), wanted.dense(), rtol=1e-5, atol=1e-6)


def test_the_scale_is_that_of_the_last_step() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    one = quantizer(weight, 3)
    one(weight)
    with torch.no_grad():
        one.centroids.mul_(2)
    expected = rounded(one.centroids.detach().numpy())[0][one.index.numpy() - 1]
    np.testing.assert_array_equal(one.integer_encoding.scale, np.abs(one.centroids.detach().numpy()).max() / 127)
    np.testing.assert_array_equal(one.integers(weight.numpy()).dequantize(), expected)


@pytest.mark.parametrize("method", ["codebook(4)", "codebook-refresh(4)"])
def test_a_program_holds_no_more_numbers_than_the_codebook(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)).eval()
    x = torch.randn(32, 1, 6, 6, generator=generator)
    labels = torch.randint(0, 3, (32,), generator=generator)
    recipe = Recipe.model_validate({
        "version": 1, "weights": {"format": "int8", "block": "tensor", "method": method},
        "activations": {"format": "uint8", "method": "after-training"}})
    model = fb.fold(fb.capture(net, x), norms="keep")
    sim = fb.trainable(fb.calibrate(model, fb.plan(model, recipe), [x]))
    losses = fb.fit(sim, [(x, labels)], epochs=10, optimizer=fb.Adam(1e-2), quiet=True)
    assert losses[-1] < losses[0]
    program = fb.lower(fb.calibrate_activations(sim, [x])).program
    weights = [node.weight.codes for node in program.nodes if isinstance(node, nodes.Conv | nodes.Linear)]
    assert len(weights) == 2
    assert len(np.unique(np.abs(weights[0]))) <= 4  # a batch norm's negative scale turns the signs of a channel
    assert len(np.unique(weights[1])) <= 4
    assert np.abs(weights[1]).max() == 127
    assert not differences(program, {program.inputs[0]: x.numpy()})


@pytest.mark.parametrize("start", CODEBOOK_STARTS)
def test_other_starts_are_those_of_compress(start) -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((6, 20)).astype(np.float32) ** 3
    one = quantizer(torch.from_numpy(weight), 4, partial(Codebook, seed=2, start=start))
    shared = share(weight, 4, method=start, seed=2)
    np.testing.assert_array_equal(one(torch.from_numpy(weight)).detach(),
                                  shared.with_centroids(rounded(shared.centroids)).dense())
    assert not np.array_equal(shared.centroids, share(weight, 4).centroids), "the optimum, which has another name"


@pytest.mark.parametrize("seed", [-1, 0.5])
def test_seeds_are_whole_numbers(seed) -> None:
    with pytest.raises(EncodingError, match="seed of a codebook's start"):
        quantizer(torch.ones(2, 2), 2, partial(Codebook, seed=seed, start="random"))

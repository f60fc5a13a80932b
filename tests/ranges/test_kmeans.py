"""Exact k-means against the golden example, brute force and scikit-learn; Lloyd from each start."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.errors import EncodingError
from fewbits.ranges.distinct import binned, distinct
from fewbits.ranges.kmeans import lloyd, nearest, optimal, squared_error
from fewbits.ranges.kmeans_starts import STARTS, density, linear


def brute_force(values: list[float], k: int) -> float:
    """Least sum of squares over every cut of the sorted values into k runs."""
    ordered = np.sort(np.array(values))
    return min(sum(float(((run - run.mean()) ** 2).sum()) for run in np.split(ordered, cuts))
               for cuts in combinations(range(1, len(ordered)), k - 1))


def test_the_example_has_the_golden_optimum(golden) -> None:
    expected = golden("kmeans_4x4")
    values = np.array(expected["input"])
    clusters = optimal(values, expected["k"])
    np.testing.assert_allclose(clusters.centroids, expected["global_optimum"]["centroids"], rtol=1e-6, atol=1e-12)
    assert clusters.sse == pytest.approx(expected["wcss"], rel=1e-6)
    assert clusters.bound == clusters.sse
    labels = nearest(values, clusters.centroids)
    np.testing.assert_array_equal(labels, expected["labels"])
    np.testing.assert_allclose(clusters.centroids[labels], expected["reconstructed"], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("start", ["linear", "density", "bad_random"])
def test_lloyd_ends_where_the_golden_file_says(golden, start: str) -> None:
    section = golden("kmeans_4x4")
    values, expected = np.array(section["input"]), section[f"lloyd_{start}"]
    if start != "bad_random":
        own = {"linear": linear, "density": density}[start](values, section["k"])
        np.testing.assert_allclose(own, expected["init"], rtol=1e-6)
    clusters = lloyd(values, np.array(expected["init"]))
    np.testing.assert_allclose(clusters.centroids, expected["final"], rtol=1e-6, atol=1e-12)
    assert clusters.rounds == expected["iterations"]
    assert clusters.sse == pytest.approx(expected["wcss"], rel=1e-6)


numbers = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@settings(max_examples=150)
@given(st.lists(numbers, min_size=1, max_size=9), st.integers(1, 5))
def test_the_optimum_equals_brute_force(values: list[float], k: int) -> None:
    clusters = optimal(np.array(values), k)
    expected = brute_force(values, min(k, len(values)))
    assert clusters.sse == pytest.approx(expected, rel=1e-9, abs=1e-9 * max(1.0, max(abs(v) for v in values)))


@settings(max_examples=60)
@given(st.lists(st.tuples(numbers, st.integers(1, 4)), min_size=2, max_size=6), st.integers(1, 3))
def test_weights_count_like_repetitions(points: list[tuple[float, int]], k: int) -> None:
    values, counts = (np.array(column) for column in zip(*points, strict=True))
    weighted, repeated = optimal(values, k, counts), optimal(np.repeat(values, counts), k)
    assert weighted.sse == pytest.approx(repeated.sse, rel=1e-9, abs=1e-9)


def test_an_outlier_does_not_drown_the_rest() -> None:
    near = np.array([0.0, 1e-3, 2.0, 2.001])
    for far in (-1e9, 1e9):
        clusters = optimal(np.append(near, far), 3)
        assert clusters.sse == pytest.approx(1e-6, rel=1e-3)


def test_never_worse_than_the_best_of_ten_of_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    rng = np.random.default_rng(0)
    for values in (rng.standard_normal(3000), rng.laplace(size=3000), rng.random(500) ** 3):
        for k in (2, 4, 16):
            theirs = cluster.KMeans(k, n_init=10, random_state=0).fit(values.reshape(-1, 1)).inertia_
            assert optimal(values, k).sse <= theirs * (1 + 1e-9)


@pytest.mark.parametrize("start", STARTS)
def test_lloyd_never_beats_the_optimum(start: str) -> None:
    values = np.random.default_rng(1).standard_normal(2000)
    best = optimal(values, 8)
    for seed in range(3):
        assert lloyd(values, STARTS[start](values, 8, seed)).sse >= best.sse * (1 - 1e-12)


def test_fewer_distinct_values_than_clusters_are_kept_exactly() -> None:
    clusters = optimal(np.array([3.0, 1.0, 3.0]), 4)
    np.testing.assert_array_equal(clusters.centroids, [1.0, 3.0])
    assert clusters.sse == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_of_16_bits_are_counted_by_pattern(dtype: str) -> None:
    values = np.random.default_rng(2).standard_normal(70_000).astype(np.float32)
    cut = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    values = values.astype(np.float16) if dtype == "float16" else cut
    values[:2] = 0.0, -0.0
    expected, counts = np.unique(values.astype(np.float64), return_counts=True)
    points = distinct(values)
    np.testing.assert_array_equal(points.values, expected)
    np.testing.assert_array_equal(points.weights, counts)


def test_binning_keeps_its_bound() -> None:
    values = np.random.default_rng(3).standard_normal(5000)
    exact, coarse = optimal(values, 8), optimal(values, 8, exact_up_to=100)
    assert coarse.bound <= exact.sse <= coarse.sse
    assert coarse.sse / exact.sse < 1.001
    points = distinct(values)
    bins = binned(points, 100)
    on_points, on_bins = squared_error(points, coarse.centroids), squared_error(bins, coarse.centroids)
    assert on_points <= on_bins + bins.spread * (1 + 1e-9)
    assert abs(np.sqrt(on_points) - np.sqrt(on_bins)) <= np.sqrt(bins.spread)


@pytest.mark.parametrize(("values", "k"), [([], 2), ([1.0, np.nan], 2), ([1.0, np.inf], 1), ([1.0], 0)])
def test_bad_input_is_refused(values: list[float], k: int) -> None:
    with pytest.raises(EncodingError):
        optimal(np.array(values), k)

"""The first step of a learned grid has the least squared error that a slow search finds, for any grid and block."""

import numpy as np
import pytest
import torch
from quantizers import activation_quantizer, weight_quantizer

from fewbits.train.initial_step import least_squares_step, paper_step

GRIDS = [(-2, 1), (-8, 7), (-127, 127), (0, 3), (0, 15), (0, 255), (-1, 1)]


def error(v, step, low, high):
    return sum((step * min(max(round(x / step), low), high) - x) ** 2 for x in v)  # round: ties to even


@pytest.mark.parametrize(("low", "high"), GRIDS)
@pytest.mark.parametrize("draw", ["normal", "outlier", "even", "one-sided"])
def test_no_step_of_a_slow_search_is_better(low, high, draw):
    numbers = np.random.default_rng(high - low).normal(size=600)
    if draw == "outlier":
        numbers[7] = 9.0
    elif draw == "even":
        numbers = np.linspace(-1, 1, 600)
    elif draw == "one-sided":
        numbers = np.abs(numbers)
    found = float(least_squares_step(torch.from_numpy(numbers)[None], low, high))
    reach = max(numbers.max() / high, numbers.min() / low if low else 0)
    slow = min(error(numbers, step, low, high) for step in reach * np.geomspace(0.01, 1, 150))
    assert error(numbers, found, low, high) <= slow * 1.02


def test_by_hand():
    # 0, 1, 2, 3 are their own codes at step 1; 0, 1, 3 at two bits unsigned too, with one code to spare
    assert float(least_squares_step(torch.tensor([[0.0, 1, 2, 3]]), 0, 3)) == 1
    assert float(least_squares_step(torch.tensor([[0.0, 1, 3]]), 0, 3)) == 1
    # of -1, 0 and 1 for -2, -1, 1 and 2: codes are all ±1, whose step is the mean magnitude, 3/2, with an error of 1
    assert float(least_squares_step(torch.tensor([[-2.0, -1, 1, 2]]), -1, 1)) == 1.5


def test_each_block_for_itself():
    rows = torch.stack([torch.linspace(-1, 1, 40), torch.linspace(-3, 2, 40), torch.zeros(40)])
    found = least_squares_step(rows, -8, 7)
    assert torch.equal(found, torch.cat([least_squares_step(row[None], -8, 7) for row in rows]))
    assert found[2] == 0, "zeros say nothing"
    assert least_squares_step(-torch.ones(1, 3), 0, 3) == 0, "nor do numbers where there are no codes"


def test_long_blocks_are_looked_at_evenly():
    numbers = torch.randn(1, 300_000, generator=torch.Generator().manual_seed(0))
    assert least_squares_step(numbers, -8, 7).item() == pytest.approx(0.3352, rel=0.03)  # σ = 1, 16 levels


def test_methods_begin_so():
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    for method, start in (("lsq", lambda rows: least_squares_step(rows, -8, 7)),
                          ("lsq-paper", lambda rows: paper_step(rows, 7))):
        quantizer = weight_quantizer(method, "int4", weight, per_channel=True)
        quantizer(weight)
        assert torch.equal(quantizer.scale.detach().reshape(-1), start(weight))
    quantizer = activation_quantizer("lsq", "uint2")
    x = torch.tensor([[0.0, 1, 2, 3]])
    quantizer(x)
    assert quantizer.scale.item() == 1


def test_eight_bits_lose_little_at_first():
    weight = torch.randn(1, 4000, generator=torch.Generator().manual_seed(2))
    power = weight.square().sum().item()
    least, paper = (error(weight[0].tolist(), float(step), -127, 127) / power for step in
                    (least_squares_step(weight, -127, 127), paper_step(weight, 127)))
    assert least < 1e-4 < 10 * least < paper

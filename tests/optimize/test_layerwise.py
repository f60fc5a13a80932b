"""Sequential MSE, GPTQ and SmoothQuant: nearer to the float network than min-max scales and nearest rounding."""

import numpy as np
import pytest
import torch
from optimize_cases import batches, error, outputs, simulation

from fewbits.errors import RepairError
from fewbits.lower.lower import lower
from fewbits.optimize.adaround import Schedule
from fewbits.optimize.brecq import blocks, reconstruct_blocks
from fewbits.optimize.gptq import gptq, round_matrix
from fewbits.optimize.sequential_mse import sequential_mse
from fewbits.optimize.smoothquant import smooth, smoothing


@pytest.mark.parametrize("repair", [sequential_mse, gptq])
@pytest.mark.parametrize("recipe", ["w4a8", "w8a8-per-tensor"])
def test_nearer_to_the_float_outputs_and_it_lowers(repair, recipe):
    sim = simulation(recipe)
    truth = outputs(sim.reference)
    done = repair(sim, batches())
    assert error(done, truth) < error(sim, truth)
    lower(done)


def test_gptq_against_a_plain_implementation():
    """The inverse Hessian updated by elimination after each input, as Optimal Brain Surgeon states it."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(200, 7, generator=generator).double(), torch.randn(3, 7, generator=generator).double()
    x = x @ torch.randn(7, 7, generator=generator).double()
    scale, zero = torch.full((3, 7), 0.3).double(), torch.zeros(3, 7).double()
    got = round_matrix(weight, x, scale, zero, -8, 7, 0.01, by_size=False)
    hessian = (x.T @ x).numpy()
    hessian[np.diag_indices(7)] += 0.01 * hessian.diagonal().mean()
    inverse, left, codes = np.linalg.inv(hessian), weight.numpy().copy(), np.zeros((3, 7))
    for j in range(7):
        codes[:, j] = np.rint(left[:, j] / 0.3).clip(-8, 7)
        left -= np.outer((left[:, j] - codes[:, j] * 0.3) / inverse[j, j], inverse[j])
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        inverse[:, j] = inverse[j] = 0
        inverse[j, j] = 1
    assert np.array_equal(got.numpy(), codes)


def test_gptq_survives_inputs_that_are_always_zero():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0
    weight = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)).double()
    scale = torch.full((2, 6), 0.2).double()
    codes = round_matrix(weight, x, scale, torch.zeros(2, 6).double(), -8, 7, 0.01, by_size=True)
    assert codes.isfinite().all()


def test_smoothing_by_hand_and_the_function_stays():
    activation, weight = torch.tensor([4.0, 0, 9]).double(), torch.tensor([1.0, 1, 4]).double()
    assert smoothing(activation, weight, 0.5).tolist() == [2, 1, 1.5]
    sim = simulation()
    done = smooth(sim, batches())
    torch.testing.assert_close(outputs(done.reference), outputs(sim.reference), rtol=1e-4, atol=1e-4)
    assert not done.model.tensor("grouped.0.weight").equal(sim.model.tensor("grouped.0.weight"))
    lower(done)


def test_what_cannot_be():
    sim = simulation()
    with pytest.raises(RepairError, match="between 0 and 1"):
        smooth(sim, batches(), alpha=2)
    with pytest.raises(RepairError, match="one-shot"):
        smooth(sim, iter(batches()))
    rounded = gptq(sim, batches(1))
    for repair in (smooth, sequential_mse):
        with pytest.raises(RepairError, match="before"):
            repair(rounded, batches())


def test_blocks_end_where_one_value_is_alive():
    sim = simulation()
    found = [[node.name for node in block.nodes] for block in blocks(sim)]
    assert sum(len(block) for block in found) == len(sim.model.graph.nodes)
    assert len(found[0]) == 2  # a layer and its ReLU
    together = next(block for block in found if "depthwise.0" in block)
    assert "point.0" in together  # the residual holds them together
    assert "first.0" not in together


def test_blocks_are_reconstructed_and_lower():
    sim = simulation()
    truth = outputs(sim.reference)
    schedule = Schedule(iterations=100, rate=0.05)
    done = reconstruct_blocks(sim, batches(), schedule=schedule)
    assert error(done, truth) < error(sim, truth)
    lower(done)


def test_dropping_quantization_gives_another_rounding_that_lowers():
    sim = simulation()
    schedule = Schedule(iterations=20, rate=0.05)
    plain, dropped = (reconstruct_blocks(sim, batches(), schedule=schedule, drop=drop, even_if_worse=True)
                      for drop in (0.0, 0.5))
    assert not outputs(plain).equal(outputs(dropped))
    lower(dropped)

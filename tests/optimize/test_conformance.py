"""Every repair keeps what repairs promise (fewbits.testing.check_algorithm)."""

from functools import partial

import pytest
import torch
from optimize_cases import batches, simulation

from fewbits.errors import FileError
from fewbits.optimize.absorb import absorb_high_biases
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.optimize.bias_correction import correct_biases, correct_biases_without_data
from fewbits.optimize.brecq import reconstruct_blocks
from fewbits.optimize.equalize import equalize
from fewbits.optimize.gptq import gptq
from fewbits.optimize.sequential_mse import sequential_mse
from fewbits.optimize.smoothquant import smooth
from fewbits.testing import check_algorithm

QUICK = Schedule(iterations=30, rows=128, evidence=1024)


@pytest.mark.parametrize(("algorithm", "settings"), [
    (partial(adaround, schedule=QUICK), {"resumable": True, "slack": 0.5}),
    (partial(reconstruct_blocks, schedule=QUICK), {"resumable": True, "slack": 0.5}),
    (gptq, {"resumable": True, "slack": 0.5}),
    (sequential_mse, {"resumable": True, "slack": 0.5}),
    (correct_biases, {"slack": 0.3}),
    (lambda sim, batches: correct_biases_without_data(sim), {"slack": 1.0}),
    (equalize, {"slack": 1.0, "recipe": "w8a8-per-tensor"}),
    (smooth, {"slack": 2.0, "recipe": "w8a8-per-tensor"}),
    (absorb_high_biases, {"keeps_float": False, "slack": 1.0}),
], ids=["adaround", "brecq", "gptq", "sequential_mse", "correct_biases", "data_free", "equalize", "smooth", "absorb"])
def test_repairs(algorithm, settings):
    check_algorithm(algorithm, seeds=range(2), **settings)


def test_the_check_finds_a_repair_that_cheats():
    def spoils_its_input(simulation, batches):
        simulation.model.tensor(next(n for n, _ in simulation.model.named_parameters())).data.mul_(0.5)
        return simulation

    def rolls_dice(simulation, batches):
        repaired = simulation.to_repair()
        next(repaired.model.parameters()).data.add_(torch.randn(1) * 1e-3)
        return repaired

    for cheat, message in ((spoils_its_input, "has changed"), (rolls_dice, "two runs differ")):
        with pytest.raises(AssertionError, match=message):
            check_algorithm(cheat, seeds=[0])


def test_a_checkpoint_of_another_job_is_refused(tmp_path):
    path = tmp_path / "kept"
    adaround(simulation(), batches(1), schedule=QUICK, checkpoint=path)
    with pytest.raises(FileError, match="another model, plan or settings"):
        adaround(simulation(seed=1), batches(1), schedule=QUICK, checkpoint=path)
    path.write_bytes(b"junk")
    with pytest.raises(FileError, match="no checkpoint"):
        adaround(simulation(), batches(1), schedule=QUICK, checkpoint=path)

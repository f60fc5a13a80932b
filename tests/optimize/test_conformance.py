"""Every repair keeps what repairs promise (fewbits.testing.check_algorithm)."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from optimize_cases import batches, network, outputs, simulation
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import FileError, RepairError, RepairWarning
from fewbits.fold.fold import fold
from fewbits.optimize import checkpoint
from fewbits.optimize.absorb import absorb_high_biases
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.optimize.batch_norm import reestimate_batch_norm
from fewbits.optimize.bias_correction import correct_biases, correct_biases_without_data
from fewbits.optimize.brecq import reconstruct_blocks
from fewbits.optimize.checkpoint import Checkpoint
from fewbits.optimize.equalize import equalize
from fewbits.optimize.gptq import gptq
from fewbits.optimize.layer import layers
from fewbits.optimize.outcome import TOLERATED, _until_certain, sqnr_of_outputs
from fewbits.optimize.rounding_study import rounded
from fewbits.optimize.sequential_mse import sequential_mse
from fewbits.optimize.smoothquant import smooth
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.storage.checkpoint import write_checkpoint
from fewbits.testing import check_algorithm, objectives
from fewbits.testing.compared import bytes_of

SEEDS = range(2)
CHAINED = {"recipe": "w8a8-per-tensor", "network": lambda seed: (network(seed), batches(1, 8)[0])}
QUICK = Schedule(iterations=30, rows=128)  # its evidence is all sums of these small networks


def freely(repair, **settings):
    """Whatever becomes of the outputs: of networks with random weights, they tell little."""
    return partial(repair, even_if_worse=True, **settings)


@pytest.mark.parametrize(("algorithm", "objective", "settings"), [
    (freely(adaround, schedule=QUICK), objectives.layer_error, {}),
    (freely(reconstruct_blocks, schedule=QUICK), objectives.block_error, {}),
    (freely(gptq), objectives.sum_error, {}),
    (freely(sequential_mse), objectives.channel_error, {}),
    (freely(sequential_mse), objectives.channel_error, {"recipe": "w8a8-per-tensor"}),
    (correct_biases, None, {"resumable": False}),
    (lambda sim, batches: correct_biases_without_data(sim), None, {"resumable": False}),
    (reestimate_batch_norm, None, {"norms": "keep", "recipe": "qat-w8a8"}),
    (freely(equalize), objectives.imbalance, CHAINED),
    (freely(smooth), objectives.difficulty, CHAINED),
    (freely(smooth, alpha=0.8), partial(objectives.difficulty, alpha=0.8), CHAINED),
    (freely(absorb_high_biases), objectives.high_bias, CHAINED | {"keeps_float": False}),
], ids=["adaround", "brecq", "gptq", "sequential_mse", "sequential_mse_per_tensor", "correct_biases", "data_free",
        "batch_norm", "equalize", "smooth", "smooth_0.8", "absorb"])
def test_repairs(algorithm, objective, settings):
    better = []

    def watched(before, after, batches):
        parts = list(objective(before, after, batches))
        better.extend(part for part in parts if part.after < 0.999 * part.before)
        return parts

    check_algorithm(algorithm, objective and watched, seeds=SEEDS, **settings)
    assert better or objective is None, "it did nothing on any network"


REPAIRS = [partial(adaround, schedule=QUICK), partial(reconstruct_blocks, schedule=QUICK), gptq, sequential_mse,
           correct_biases, equalize, smooth, absorb_high_biases]


@pytest.mark.parametrize("recipe", ["w4a8", "w8a8-per-tensor"])
@pytest.mark.parametrize("repair", REPAIRS)
def test_no_repair_makes_the_outputs_worse_unless_told(repair, recipe):
    sim = simulation(recipe)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RepairWarning)
        kept = repair(sim, batches())
    was, now = (sqnr(one, sim.reference) for one in (sim, kept))
    told = sqnr(repair(sim, batches(), even_if_worse=True), sim.reference)
    assert now == pytest.approx(max(told, was) if abs(told - was) > 0.1 else told, abs=1e-6)
    said = [str(one.message) for one in caught if one.category is RepairWarning]
    assert len(said) == (told < was - 0.1)
    if said:
        assert f"{told:.1f} dB in place of {was:.1f}" in said[0]
        assert bytes_of(kept) == bytes_of(sim)
        assert kept is not sim


def sqnr(sim, reference):
    """dB of the outputs on the calibration data, straight from the definition."""
    truth = outputs(reference).double()
    return float(10 * torch.log10(truth.square().sum() / (outputs(sim).double() - truth).square().sum()))


@pytest.mark.parametrize("repair", REPAIRS)
def test_batches_that_can_be_read_once_only_are_refused(repair):
    with pytest.raises(RepairError, match="one-shot"):
        repair(simulation(), iter(batches()))


def test_outputs_of_unlike_sizes_weigh_the_same():
    """An output a thousand times smaller, twice as wrong: it is seen."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.large, self.small = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return {"large": 1000 * self.large(x), "small": self.small(x)}

    torch.manual_seed(0)
    x = torch.randn(32, 4)
    model = fold(capture(Two().eval(), x[:2]))
    good = calibrate(model, plan(model, "w8a8"), [x])
    bad = good.copy()
    bad._reference = (good.reference,)
    with torch.no_grad():
        bad.model.tensor("small.bias").add_(1.0)
    was, now = sqnr_of_outputs((good, bad), [x])
    with torch.no_grad():
        wanted, got = model(x), bad(x)
        shares = [float((got[k] - wanted[k]).square().sum() / wanted[k].square().sum()) for k in wanted]
    assert now == pytest.approx(-10 * np.log10(np.mean(shares)), abs=1e-3)
    assert was - now > 20


@pytest.mark.parametrize("added", [0.0, 1e-4, 1e-3, 0.01, 1.0])
@pytest.mark.parametrize("turned", [False, True])
def test_the_look_at_the_outputs_ends_early_and_decides_as_a_whole_one(added, turned):
    """Two simulations of 8 batches, one with a bias moved, either of them the repaired one."""
    torch.manual_seed(1)
    data = [torch.randn(8, 4) for _ in range(8)]
    model = fold(capture(nn.Linear(4, 3).eval(), data[0][:2]))
    before = calibrate(model, plan(model, "w8a8"), data)
    after = before.copy()
    after._reference = (before.reference,)
    with torch.no_grad():
        after.model.tensor("bias").add_(added)
        before, after = (after, before) if turned else (before, after)
        seen = [(model(x), after(x)) for x in data]
    whole = sqnr_of_outputs((before, after), data)
    was, now = _until_certain(before, data, None, seen)
    assert (now < was - TOLERATED) == (whole[1] < whole[0] - TOLERATED) and now == pytest.approx(whole[1])
    assert was == pytest.approx(whole[0]) if now < was - TOLERATED else was >= whole[0] - 1e-9
    assert turned or added != 1.0 or now < was - TOLERATED, "a bias moved by 1 is worse"


@pytest.mark.parametrize("repair", [
    partial(adaround, schedule=Schedule(iterations=3)), partial(reconstruct_blocks, schedule=Schedule(iterations=3)),
    gptq, sequential_mse, correct_biases, equalize, smooth, absorb_high_biases,
], ids=["adaround", "brecq", "gptq", "sequential_mse", "correct_biases", "equalize", "smooth", "absorb"])
def test_a_labelled_loader_does_as_well(repair):
    sim, plain, repair = simulation(), batches(2), freely(repair)
    labelled = [{"picture": x, "label": torch.zeros(len(x))} for x in plain]
    assert bytes_of(repair(sim, labelled, batch_to_inputs=lambda batch: batch["picture"])) == bytes_of(
        repair(sim, plain))


def test_blocks_begun_at_another_rounding_never_leave_it_for_a_worse_one():
    """Each block for itself: what that does to the outputs, blocks behind it decide."""
    schedule = Schedule(iterations=100, rate=0.05)
    first = adaround(simulation(), batches(), schedule=schedule, even_if_worse=True)
    done = reconstruct_blocks(first, batches(), schedule=schedule, even_if_worse=True)
    parts = list(objectives.block_error(first, done, batches()))
    assert [part for part in parts if not part.is_kept] == []
    assert any(part.after < 0.95 * part.before for part in parts)


def test_the_check_finds_a_repair_that_cheats():
    def spoils_its_input(simulation, batches):
        simulation.model.tensor(next(n for n, _ in simulation.model.named_parameters())).data.mul_(0.5)
        return simulation

    def rolls_dice(simulation, batches):
        repaired = simulation.to_repair()
        next(repaired.model.parameters()).data.add_(torch.randn(1) * 1e-3)
        return repaired

    def rounds_one_layer_up(simulation, batches):
        names = [layer.name for layer in layers(simulation)]
        return rounded(simulation, names[-1:], "ceil", torch.Generator())

    def forgets_where_it_was(simulation, batches, checkpoint=None):
        kept = Checkpoint.open(checkpoint, simulation, "cheat", batches)
        repaired = simulation.to_repair() if "begun" in kept else rounds_one_layer_up(simulation, batches)
        kept.add({"begun": torch.ones(1)})
        return repaired

    for cheat, message in ((spoils_its_input, "has changed"), (rolls_dice, "two runs differ"),
                           (rounds_one_layer_up, "its objective is worse")):
        with pytest.raises(AssertionError, match=message):
            check_algorithm(cheat, objectives.layer_error, seeds=[0], resumable=False)
    with pytest.raises(AssertionError, match="going on after 1 writes"):
        check_algorithm(forgets_where_it_was, None, seeds=[0])


def test_a_checkpoint_of_another_job_is_refused(tmp_path):
    path = tmp_path / "kept"
    adaround(simulation(), batches(1), schedule=QUICK, checkpoint=path)
    for given, other, word in ((simulation(seed=1), {}, "another model"), (simulation(), {"seed": 1}, "another method"),
                               (simulation(), {"batches": batches(2)}, "another data")):
        with pytest.raises(FileError, match=word):
            adaround(given, other.pop("batches", batches(1)), schedule=QUICK, checkpoint=path, **other)
    path.write_bytes(b"junk")
    with pytest.raises(FileError, match="remove it to begin anew"):
        adaround(simulation(), batches(1), schedule=QUICK, checkpoint=path)


@pytest.mark.parametrize("forged", [torch.zeros(3), torch.tensor(float("nan")), torch.tensor(100.0),
                                    torch.tensor(0.5), torch.tensor(1, dtype=torch.int32)])
def test_forged_codes_with_right_hashes_are_refused(tmp_path, monkeypatch, forged):
    path, given = tmp_path / "kept", simulation()
    adaround(given, batches(1), schedule=QUICK, checkpoint=path)
    jobs = []
    real = checkpoint.read_checkpoint
    monkeypatch.setattr(checkpoint, "read_checkpoint", lambda path, job: (jobs.append(job), real(path, job))[1])
    adaround(given, batches(1), schedule=QUICK, checkpoint=path)
    kept = real(path, jobs[0])
    name = next(iter(kept))
    write_checkpoint(path, jobs[0], kept | {name: forged if forged.ndim else forged.expand(kept[name].shape)})
    with pytest.raises(FileError, match="holds for"):
        adaround(given, batches(1), schedule=QUICK, checkpoint=path)

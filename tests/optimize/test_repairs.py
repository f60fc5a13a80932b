"""Recipes that name repairs: which, in what order, on what data, and what happens where they were not made."""

import warnings
from dataclasses import replace
from typing import get_args

import pytest
import torch
from optimize_cases import batches, error, network, outputs
from torch import nn

import fewbits as fb
from fewbits.capture.capture import capture
from fewbits.errors import CalibrationError, LoweringError, RecipeError, RepairError, RepairWarning
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.optimize import repairs as module
from fewbits.optimize.bias_correction import correct_biases
from fewbits.optimize.repairs import REPAIRS, calibrate_and_repair, inputs_to_repair_on, repair
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe, RepairName, recipe
from fewbits.testing.compared import bytes_of
from fewbits.train.registry import trainable


def wanting(*repairs, base="w8a8-per-tensor"):
    return Recipe.model_validate(recipe(base).model_dump() | {"repairs": repairs})


def model(net=None):
    return fold(capture(net or network(), batches()[0][:2]))


def test_every_name_of_the_recipe_language_has_its_repair_in_its_order():
    assert tuple(REPAIRS) == get_args(RepairName)


def test_the_order_is_ours_whatever_the_recipe_says(monkeypatch):
    made = []
    for name, one in REPAIRS.items():
        def noted(simulation, batches, *, batch_to_inputs=None, name=name, make=one.make):
            made.append(name)
            return simulation
        monkeypatch.setattr(module, "REPAIRS", module.REPAIRS | {name: replace(one, make=noted)})
    wanted = wanting("bias-correction", "adaround", "equalization", "sequential-mse")
    assert wanted.repairs == ("equalization", "sequential-mse", "adaround", "bias-correction")
    calibrate_and_repair(model(), plan(model(), wanted), batches())
    assert made == list(wanted.repairs)


def test_the_default_is_least_squares_ranges_and_corrected_biases():
    """Made by hand beside it: the same bytes; and nearer to the float network than w8a8."""
    captured, truth = model(), outputs(network())
    wanted = plan(captured, "default-w8a8")
    done = calibrate_and_repair(captured, wanted, batches())
    by_hand = correct_biases(calibrate(captured, wanted, batches()), batches())
    assert bytes_of(done) == bytes_of(by_hand)
    assert error(done, truth) < error(calibrate(captured, plan(captured, "w8a8"), batches()), truth)
    program = fb.quantize(network(), batches()[0][:2], batches())
    assert torch.equal(program(batches()[0]), fb.lower(done)(batches()[0]))


def test_what_was_not_made_is_refused_and_what_was_is_forgotten():
    captured = model()
    sim = calibrate(captured, plan(captured, "default-w8a8"), batches())
    assert "then bias-correction" in str(sim.plan)
    with pytest.raises(LoweringError, match=r"wants bias-correction, which was not made: call fb\.repair"):
        lower(sim)
    with pytest.raises(RecipeError, match="repairs are made when nothing is trained"):
        trainable(sim)
    done = repair(sim, batches())
    assert done.plan.repairs == ()
    assert sim.plan.repairs == ("bias-correction",)
    lower(done)


@pytest.mark.parametrize("name", ["w8a8", "w4a8", "w8"])
def test_recipes_without_repairs_are_as_they_were(name):
    captured = model()
    resolved = plan(captured, name)
    assert bytes_of(calibrate_and_repair(captured, resolved, batches())) == bytes_of(
        calibrate(captured, resolved, batches()))
    assert "then" not in str(resolved)


@pytest.mark.parametrize(("repairs", "message"), [
    (["bias-corection"], "no repair is called 'bias-corection': choose among equalization"),
    (["bias-correction", "bias-correction"], "made once"),
    (["gptq", "adaround"], "both choose the rounding"),
])
def test_a_wrong_list_is_refused_by_name(tmp_path, repairs, message):
    path = tmp_path / "recipe.yaml"
    path.write_text("version: 1\nweights: {format: int8}\nactivations: {format: uint8}\n"
                    f"repairs: [{', '.join(repairs)}]\n")
    with pytest.raises(RecipeError, match=message):
        recipe(path)


def test_a_method_that_learns_takes_no_repairs():
    with pytest.raises(ValueError, match="method lsq learns"):
        wanting("bias-correction", base="lsq-w4a4")


def test_a_stream_that_can_be_read_once_will_do_where_ranges_are_not_found_anew():
    captured, resolved = model(), plan(model(), "default-w8a8")
    once = calibrate_and_repair(captured, resolved, iter(batches()))
    assert bytes_of(once) == bytes_of(calibrate_and_repair(captured, resolved, batches()))
    with pytest.raises(RepairError, match="equalization finds the ranges anew"):
        calibrate_and_repair(captured, plan(captured, wanting("equalization")), iter(batches()))


def test_weights_alone_may_be_repaired_and_then_need_data():
    captured = model()
    resolved = plan(captured, wanting("bias-correction", base="w8"))
    assert bytes_of(calibrate_and_repair(captured, resolved, iter(batches()))) == bytes_of(
        calibrate_and_repair(captured, resolved, batches()))
    with pytest.raises(CalibrationError, match="no batches to repair on"):
        calibrate_and_repair(captured, resolved)


def test_labelled_batches_of_a_loader():
    labelled = [{"picture": x, "label": torch.zeros(len(x))} for x in batches()]
    done = calibrate_and_repair(model(), plan(model(), "default-w8a8"), labelled,
                                batch_to_inputs=lambda batch: batch["picture"])
    assert bytes_of(done) == bytes_of(calibrate_and_repair(model(), plan(model(), "default-w8a8"), batches()))


def test_equalization_without_chains_says_so_and_goes_on():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 3)).eval()
    captured = model(net)
    with pytest.warns(RepairWarning, match="equalization finds no two layers in a chain"):
        done = calibrate_and_repair(captured, plan(captured, wanting("equalization", "bias-correction")), batches())
    lower(done)


def test_wide_networks_are_repaired_on_fewer_inputs():
    """1×1024×1024 through a layer of 16 channels: 2^20 · (1 + 16) elements at once, and 3 inputs' worth of 2^26."""
    small, wide = (fold(capture(nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU()).eval(), torch.zeros(2, 1, size, size)))
                   for size in (16, 1024))
    assert inputs_to_repair_on(small) == module.MOST
    assert inputs_to_repair_on(wide) == module.FEWEST
    assert module._widest(wide) == 2**20 * 32


class Twice(nn.Module):
    """One layer at two places: a correction for one would spoil the other."""

    def __init__(self):
        super().__init__()
        self.shared, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.shared(self.shared(x).relu()).relu())


def test_a_layer_with_two_readers_keeps_its_bias():
    torch.manual_seed(0)
    net, x = Twice().eval(), torch.randn(64, 6)
    captured = fold(capture(net, x[:2]))
    sim = calibrate(captured, plan(captured, "w4a8"), [x])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RepairWarning)
        done = correct_biases(sim, [x], even_if_worse=True)
    assert torch.equal(done.model.tensor("shared.bias"), sim.model.tensor("shared.bias"))
    assert not torch.equal(done.model.tensor("head.bias"), sim.model.tensor("head.bias"))
    with torch.no_grad():
        assert ((done(x) - net(x)).mean(0).abs() < 1e-3).all()

"""Repairs that choose scales and rounding leave alone what the recipe leaves in float, and refuse tables."""

import warnings

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.errors import RepairError

FEW = fb.AdaRoundSchedule(iterations=20)
REPAIRS = {"adaround": lambda sim, x: fb.adaround(sim, x, schedule=FEW, even_if_worse=True),
           "gptq": lambda sim, x: fb.gptq(sim, x, even_if_worse=True),
           "sequential_mse": lambda sim, x: fb.sequential_mse(sim, x, even_if_worse=True),
           "reconstruct_blocks": lambda sim, x: fb.reconstruct_blocks(sim, x, schedule=FEW, even_if_worse=True)}
RULES = {"last": {"layer": "last", "keep_float": True}, "first": {"layer": "first", "keep_float": True},
         "weight": {"layer": "last", "weights": "float"}}


def calibrated(rule):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    batches = [torch.randn(16, 1, 8, 8) for _ in range(2)]
    base = fb.recipe("w4a8")
    model = fb.fold(fb.capture(net.eval(), batches[0]))
    plan = fb.plan(model, base.model_validate(base.model_dump() | {"rules": [rule]}))
    return fb.calibrate(model, plan, batches), batches


@pytest.mark.parametrize("repair", REPAIRS)
@pytest.mark.parametrize("rule", RULES)
def test_float_layers_stay(repair, rule):
    sim, batches = calibrated(RULES[rule])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        repaired = REPAIRS[repair](sim, batches)
    floats = "0.weight" if rule == "first" else "5.weight"
    assert torch.equal(repaired.model.tensor(floats), sim.model.tensor(floats))
    changed = [name for name in ("0.weight", "2.weight", "5.weight") if name != floats and (
        not torch.equal(repaired.model.tensor(name), sim.model.tensor(name))
        or repaired.quantizer(name).encoding != sim.quantizer(name).encoding)]
    assert changed, "the others are repaired"
    assert torch.isfinite(fb.lower(repaired)(batches[0])).all()


def test_the_study_names_what_can_be_rounded():
    sim, batches = calibrated(RULES["last"])
    rows = fb.rounding_study(sim, batches, lambda sim: 0.0, choose=lambda sim: 0.0, draws=1, schedule=FEW)
    assert rows[0].way == "nearest"
    with pytest.raises(RepairError, match="no layer is called '5'"):
        fb.rounding_study(sim, batches, lambda sim: 0.0, choose=lambda sim: 0.0, which=["5"])


@pytest.mark.parametrize("repair", REPAIRS)
def test_tables_are_refused(repair):
    sim, batches = calibrated({"layer": "last", "weights": {"format": "nf4", "integers": "int8"}})
    with pytest.raises(RepairError, match="has nf4, and rounding is chosen among integers only"):
        REPAIRS[repair](sim, batches)

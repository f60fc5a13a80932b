"""What the examples of README and docs/ are given: a small network, its inputs, and each stage that it goes through."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fewbits as fb


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 10))


class Pairs(list):
    """Batches of inputs and classes, as a loader gives them."""


@pytest.fixture
def given(made, tmp_path, monkeypatch) -> dict[str, Any]:
    """A namespace of one's own, in an empty folder that holds `data.npz`."""
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=torch.cat(made["batches"]).numpy(), y=np.arange(64) % 10)
    return {**made, **{name: copy.deepcopy(made[name]) for name in ("net", "sim", "live")}}


@pytest.fixture(scope="session")
def made() -> dict[str, Any]:
    torch.manual_seed(0)
    net = network()
    batches = [torch.randn(16, 3, 8, 8) for _ in range(4)]
    net.train()
    with torch.no_grad():
        for x in batches:
            net(x)  # batch norm has seen data of this kind
    net.eval()
    with torch.no_grad():
        labelled = Pairs((x, net(x).argmax(1)) for x in batches)
    example, model = batches[0][:2], fb.fold(fb.capture(net, batches[0][:2]))
    sim = fb.calibrate(model, fb.plan(model, "w8a8"), batches)
    kept = fb.fold(fb.capture(net, example), "keep")
    live = fb.calibrate(kept, fb.plan(kept, "lsq-w4a4"), batches)

    def score(simulation: fb.Simulation) -> float:
        return fb.compare(net, simulation, labelled).sqnr

    return {"fb": fb, "torch": torch, "np": np, "nn": nn, "net": net, "batches": batches,
            "labelled": labelled, "loader": labelled,
            "example": example, "x": example, "model": model, "plan": fb.plan(model, "w8a8"), "sim": sim, "live": live,
            "prog": fb.lower(sim), "score": score}

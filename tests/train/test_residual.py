"""The branches of residual networks hold numbers below 0, and no preset that learns takes them away."""

import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import presets, recipe
from fewbits.testing import differences
from fewbits.train.after_training import calibrate_activations
from fewbits.train.fit import fit
from fewbits.train.registry import trainable

LEARNING = [name for name in presets() if getattr(recipe(name).weights, "method", None) is not None]
SMALL = ("lsq-w2a2", "lsq-w8a8", "pact-w4a4", "dorefa-w1a4", "hwgq-w1a2", "lq-w2a2", "duq-w4a4")


class Block(nn.Module):
    """conv-BN-ReLU-conv-BN beside a shortcut, as in ResNet-20."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = (nn.Conv2d(inputs, 4, 3, padding=1) for inputs in (2, 4, 4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.norms[0](self.stem(x)).relu()
        branch = self.norms[2](self.second(self.norms[1](self.first(x)).relu()))
        return self.head((x + branch).relu().mean((2, 3)))


def learner(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Block(), torch.randn(16, 2, 8, 8)
        net(x)
    model = fold(capture(net.eval(), x), norms="keep")
    return trainable(calibrate(model, plan(model, name), [x])), x


@pytest.mark.parametrize("name", LEARNING)
def test_numbers_below_zero_stay_so(name):
    learning, x = learner(name)
    learning.train()
    learning(x)
    branch = learning.quantizer("norms.2")
    numbers = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4)
    assert branch(numbers).min() < -0.2, f"{branch.spec}"


@pytest.mark.parametrize("name", SMALL)
def test_what_is_learned_lowers(name):
    learning, x = learner(name)
    fit(learning, [(x, torch.arange(16) % 3)], epochs=2, quiet=True)
    program = lower(calibrate_activations(learning, [x]))
    assert not differences(program, {program.inputs[0]: x.numpy()})

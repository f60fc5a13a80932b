"""A layer whose weights are all zero (a branch begun at zero, a pruned layer) trains and lowers like any other."""

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.formats import parse
from fewbits.quant.plan import Site
from fewbits.quant.spec import Spec
from fewbits.train.lsq import LearnedStep, LearnedStepAndOffset


class Residual(nn.Module):
    def __init__(self, norms):
        super().__init__()
        self.first, self.branch = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) if norms else nn.Identity() for _ in range(2))
        self.head = nn.Linear(8, 4)
        self.branch.weight.data.zero_()

    def forward(self, x):
        x = self.norms[0](self.first(x)).relu()
        return self.head((x + self.norms[1](self.branch(x))).relu().mean((2, 3)))


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize(("recipe", "seed"), [("lsq-w2a2", 0), ("lsq-w2a2", 2), ("lsq-w8a8", 0), ("qat-w8a8", 0),
                                              ("pact-w4a4", 0), ("ttq", 0), ("kmeans-w2a8", 0), ("lq-w2a2", 1)])
def test_what_is_trained_is_what_runs(recipe, seed, norms):
    torch.manual_seed(seed)
    net, x, y = Residual(norms).eval(), torch.randn(64, 3, 8, 8), torch.randint(0, 4, (64,))
    model = fb.fold(fb.capture(net, x[:4]), norms="keep")
    sim = fb.trainable(fb.calibrate(model, fb.plan(model, recipe), [x]))
    fb.fit(sim, [(x[:32], y[:32]), (x[32:], y[32:])], epochs=2, quiet=True)
    sim = fb.calibrate_activations(sim, [x])
    program = fb.lower(sim)
    with torch.no_grad():
        torch.testing.assert_close(program(x), sim(x), rtol=1e-4, atol=1e-4 * float(sim(x).abs().max()))


@pytest.mark.parametrize("block", [TENSOR, CHANNEL])
def test_the_first_step_of_zeros_is_that_of_usual_weights(block):
    """Zeros take 2·E|v|/√Q_p of weights uniform within ±1/√K; a channel that is not zero keeps its own."""
    site = Site("w", "weight", (4, 6, 3, 3), Spec(parse("int4"), True, block), "test")
    weight = torch.zeros(4, 6, 3, 3)
    step = LearnedStep(site)
    step.start(weight)
    usual = torch.empty(200_000).uniform_(-1 / 54**0.5, 1 / 54**0.5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(step.scale.detach(), torch.full_like(step.scale, float(2 * usual.abs().mean() / 7**0.5)),
                               rtol=0.01, atol=0)
    weight[1] = 0.3
    step.start(weight)
    own = step.scale.detach().reshape(-1)[1 if block == CHANNEL else 0]
    assert float(own) == pytest.approx(0.3 / 7), "0.3 is the highest code, and there is no error"


def test_activations_that_begin_at_zero_learn_an_offset_too():
    site = Site("x", "activation", (None, 4), Spec(parse("uint4"), False, TENSOR), "test")
    step = LearnedStepAndOffset(site)
    step.start(torch.zeros(8, 4))
    assert float(step.scale) == pytest.approx(1 / 15)

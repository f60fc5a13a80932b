"""XNOR-Net's K in a simulation, against the formula written out."""

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.testing import differences
from fewbits.train.fit import Adam, fit
from fewbits.train.registry import trainable
from fewbits.train.xnor import WithScalingMaps, magnitude, scaling_map


def learner():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Hardtanh(),
                            nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Hardtanh(),
                            nn.Flatten(), nn.Linear(64, 3)).eval()
        x = torch.randn(8, 1, 6, 6)
    model = fold(capture(net, x), norms="keep")
    return trainable(calibrate(model, plan(model, "xnor"), [x])), x


def test_the_binary_convolution_is_multiplied_with_k():
    simulation, x = learner()
    with torch.no_grad():
        got = WithScalingMaps(simulation)(x)
        tensor = simulation.model.tensor
        before = F.hardtanh(F.batch_norm(F.conv2d(
            simulation.quantizer("input")(x), simulation.quantizer("0.weight")(tensor("0.weight")), tensor("0.bias")),
            tensor("1.running_mean"), tensor("1.running_var"), tensor("1.weight"), tensor("1.bias")))
        signs = torch.where(before >= 0, 1.0, -1.0)
        sums = F.conv2d(signs, simulation.quantizer("3.weight")(tensor("3.weight")), padding=1)
        sums = sums * scaling_map(magnitude(before), (3, 3), padding=1)
        after = F.batch_norm(sums, tensor("4.running_mean"), tensor("4.running_var"), tensor("4.weight"),
                             tensor("4.bias"))
        expected = F.linear(simulation.quantizer("5")(F.hardtanh(after)).flatten(1),
                            simulation.quantizer("7.weight")(tensor("7.weight")), tensor("7.bias"))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-3)  # the bias lies on the grid of the sums


def test_it_trains_and_its_simulation_lowers_without_k():
    simulation, x = learner()
    scaled, batches = WithScalingMaps(simulation), [(x, torch.arange(8) % 3)]
    losses = fit(scaled, batches, epochs=15, optimizer=Adam(1e-2), quiet=True)
    assert losses[-1] < losses[0]
    program = lower(simulation)
    assert not differences(program, {program.inputs[0]: x.numpy()})

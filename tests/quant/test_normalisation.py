"""Calibration data of the wrong normalisation: noticed, at the first layer; right data raises no alarm."""

import math
import warnings

import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.data import normalize
from fewbits.data.sets import load
from fewbits.data.weights import apply_weights, load_weights
from fewbits.errors import NormalisationWarning
from fewbits.fold.fold import fold
from fewbits.graph.model import Normal
from fewbits.quant.calibrate import calibrate
from fewbits.quant.normalisation import deviation, predictions
from fewbits.quant.planner import plan
from fewbits.tasks.mobilenet_v1 import mobilenet_v1_025
from fewbits.tasks.mobilenet_v2 import mobilenet_v2
from fewbits.tasks.resnet_cifar import resnet20


def images(seed, count=16):
    """Numbers from 0 to 1 that are alike within an image, as pixels are."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, 3, 3, 3, generator=generator)
    return nn.functional.interpolate(rough, size=12, mode="bilinear")


def normal(x):
    return (x - 0.5) / 0.2


@pytest.fixture(scope="module")
def net():
    """Its batch norms have seen normalised images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, momentum=None), nn.ReLU(),
                            nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, momentum=None), nn.ReLU(), nn.Flatten(),
                            nn.Linear(512, 4))
        for norm in (net[1], net[4]):
            nn.init.uniform_(norm.weight, -1.5, 1.5)
            nn.init.normal_(norm.bias)
    for seed in range(20):
        net(normal(images(seed)))
    return net.eval()


def found(net, batches, norms="fold", recipe="w8a8"):
    """The warnings of a calibration."""
    model = fold(capture(net, batches[0][:2]), norms=norms)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        calibrate(model, plan(model, recipe), batches)
    return [str(item.message) for item in caught if item.category is NormalisationWarning]


@pytest.mark.parametrize("norms", ["fold", "keep"])
def test_right_data_raises_no_alarm_and_wrong_data_does(net, norms):
    right = [images(seed) for seed in (30, 31)]
    assert found(net, [normal(x) for x in right], norms) == []
    for wrong in (lambda x: x, lambda x: 255 * x, lambda x: 2 * x - 1, lambda x: x / 0.2):
        message, = found(net, [wrong(x) for x in right], norms)
        assert f"results of {'0' if norms == 'fold' else '1'!r}" in message, "the first layer"
        assert "check the range" in message and "\n" not in message


def test_too_few_images_tell_nothing_and_batches_count_together(net):
    assert found(net, [images(1, 7)]) == []
    assert found(net, list(images(1, 8).split(2)))


def test_a_batch_norm_that_never_saw_data_predicts_nothing():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    assert found(net, [255 * images(0)]) == []
    for norms in ("fold", "keep"):
        assert predictions(fold(capture(net, images(0)), norms=norms)) == {}


def test_the_measure_by_hand():
    """ln(σ/s) + (s² + (m − μ)²)/(2σ²) − ½ of the median channel; a channel of no spread is left out."""
    predicted = Normal(torch.tensor([1.0, 0, 2, 5]).double(), torch.tensor([1.0, 2, 1, 0]).double())
    seen = Normal(torch.tensor([1.0, 4, 3, 9]).double(), torch.tensor([1.0, 1, 3, 1]).double())
    each = sorted([0.0, math.log(2) + (1 + 16) / 8 - 0.5, -math.log(3) + (9 + 1) / 2 - 0.5])
    got = deviation("a", seen, predicted)
    assert got is not None and got.nats == pytest.approx(each[1])
    assert (got.spread, got.shift) == (1, 1)
    assert deviation("a", predicted, Normal(predicted.mean, torch.zeros(4).double())) is None


def shared_case(shared, name):
    """(network, bytes, normalisation) of a shared network."""
    if name == "resnet20":
        net, task = resnet20(), normalize.IMAGENET
        apply_weights(net, load_weights(shared / "data/cifar10/resnet20-12fca82f.th"), name)
        return net.eval(), load(f"cifar10:{shared / 'data/cifar10'}").calibration.x[:32], task
    net, file, task = ((mobilenet_v2(), "mbv2_ptq_dequant.pt", normalize.SYMMETRIC) if name == "mobilenet_v2" else
                       (mobilenet_v1_025(), "mobilenetv1_025_state_dict.pt", normalize.IMAGENET))
    apply_weights(net, load_weights(shared / "data/imagenet" / file), name)
    data = load(f"images:{shared / 'data/imagenet/nips17_dev200'}", (3, 224, 224))
    return net.eval(), data.calibration.x[:8].read(), task


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v1_025", "mobilenet_v2"])
def test_real_networks(shared, name):
    net, x, task = shared_case(shared, name)
    assert found(net, [task(x)]) == []
    pixels = (task(x) * torch.tensor(task.std).reshape(-1, 1, 1) + torch.tensor(task.mean).reshape(-1, 1, 1))
    expected = name != "mobilenet_v2"  # its batch norms were folded before we got it: they say nothing
    for wrong in (pixels, 255 * pixels):
        assert bool(found(net, [wrong])) is expected
    assert found(net, [task(x).flip(1)]) == [], "swapped colours cannot be seen"

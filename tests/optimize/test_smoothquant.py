"""SmoothQuant on every layout of channels: the same function in another layout must gain the same."""

import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.optimize.chains import chains
from fewbits.optimize.smoothquant import largest_activations, smooth
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan


def loud(first, second):
    """Hidden channel 2 is a hundred times larger, and the next layer's weights for it smaller."""
    torch.manual_seed(0)
    for layer in (first, second):
        layer.reset_parameters()
    with torch.no_grad():
        first.weight[2] *= 100
        first.bias[2] *= 100
        second.weight[:, 2] /= 50
    return nn.Sequential(first, nn.ReLU(), second).eval()


def same_weights(target, source):
    state = source.state_dict()
    target.load_state_dict({name: state[name].reshape(value.shape) for name, value in target.state_dict().items()})
    return target.eval()


def smoothed(net, x):
    model = fold(capture(net, x[:4]))
    return smooth(calibrate(model, plan(model, "w4a8"), [x]), [x])


FLAT = loud(nn.Conv2d(4, 8, (3, 1)), nn.Conv2d(8, 5, (3, 1)))


@pytest.mark.parametrize("length", [18, 14])
@pytest.mark.parametrize(("kind", "kernel", "axes"), [(nn.Conv1d, 3, 0), (nn.Conv3d, (3, 1, 1), 2)])
def test_convolutions_over_one_and_three_axes_gain_what_one_over_two_gains(kind, kernel, axes, length):
    net = same_weights(nn.Sequential(kind(4, 8, kernel), nn.ReLU(), kind(8, 5, kernel)), FLAT)
    x = torch.randn(32, 4, length, generator=torch.Generator().manual_seed(length))
    wanted, got = smoothed(FLAT, x[..., None]), smoothed(net, x[(..., *[None] * axes)])
    for name in ("0.weight", "2.weight"):
        assert torch.equal(got.model.tensor(name).flatten(), wanted.model.tensor(name).flatten())
    torch.testing.assert_close(got(x[(..., *[None] * axes)]).flatten(), wanted(x[..., None]).flatten())


@pytest.mark.parametrize("height", [8, 7])
def test_linear_layers_over_images_gain_what_they_gain_over_rows(height):
    net = loud(nn.Linear(6, 8), nn.Linear(8, 6))
    x = torch.randn(6, height, 5, 6, generator=torch.Generator().manual_seed(height))
    wanted, got = smoothed(net, x.flatten(1, 2)), smoothed(net, x)
    for name in ("0.weight", "2.weight"):
        assert torch.equal(got.model.tensor(name), wanted.model.tensor(name))
    torch.testing.assert_close(got(x).flatten(1, 2), wanted(x.flatten(1, 2)))


def test_a_flattened_channel_is_as_wide_as_its_widest_number():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(20, 5)).eval()
    x = torch.randn(16, 3, 12)
    model = fold(capture(net, x[:2]))
    found = [chain for chain in chains(model) if chain.second["weight"].name == "4.weight"]
    with torch.no_grad():
        wanted = net[:3](x).abs().amax((0, 2)).double()
    assert [torch.equal(seen, wanted) for seen in largest_activations(model, found, [x], None)] == [True] * len(found)


@pytest.mark.parametrize("layout", [lambda x: x.reshape(-1, x.shape[-1]), lambda x: x.flatten(0, 1)])
def test_rows_that_become_inputs_of_their_own_end_a_chain(layout):
    """Their places are no channels, though their number divides."""

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv1d(3, 4, 3), nn.Linear(8, 5)

        def forward(self, x):
            return self.second(layout(self.first(x))).reshape(-1, 4, 5)

    assert chains(fold(capture(Rows().eval(), torch.randn(2, 3, 10)))) == ()

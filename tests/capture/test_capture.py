"""Capture: the user's names and source lines, equal outputs, and one sentence for what cannot be captured."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewbits as fb
from fewbits.capture.capture import capture
from fewbits.errors import CaptureError
from fewbits.fold.fold import fold
from fewbits.testing import random_network


class Reused(nn.Module):
    """One layer called twice, functional operators, an in-place one, and a dict for output."""

    def __init__(self):
        super().__init__()
        self.layer, self.relu = nn.Linear(6, 6), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.layer(x))
        y = self.layer(x) + x
        return {"sum": y, "parts": [F.relu(y), (x,)]}


def test_names_and_sources_are_the_users():
    model = capture(Reused(), torch.randn(2, 6))
    names = {node.name: node for node in model.graph.nodes}
    assert list(names) == ["layer", "relu", "layer#2", "add", "relu#2"]
    assert names["add"].source.startswith("test_capture.py:")
    assert set(model.state_dict()) == {"layer.weight", "layer.bias"}
    assert model.graph.structure == {"sum": "add", "parts": ["relu#2", ("relu",)]}


def test_outputs_equal_for_any_batch_and_structure_is_kept():
    net = Reused().eval()
    model = capture(net, torch.randn(3, 6))
    x = torch.randn(7, 6)
    expected, actual = net(x.clone()), model(x)
    assert torch.equal(expected["sum"], actual["sum"])
    assert torch.equal(expected["parts"][1][0], actual["parts"][1][0])


def test_named_and_several_inputs():
    class Two(nn.Module):
        def forward(self, left, right):
            return left + right

    a, b = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(capture(Two(), (a, b))(a, b), a + b)
    assert torch.equal(capture(Two(), {"left": a, "right": b})(right=b, left=a), a + b)
    with pytest.raises(CaptureError, match="the model takes left, right"):
        capture(Two(), (a, b))(a)


def test_the_users_model_is_left_alone():
    net, example = random_network(3)
    net.train()
    before = copy.deepcopy(net.state_dict())
    model = fold(capture(net, example))
    for tensor in model.parameters():
        tensor.data.zero_()
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_fold_keeps_the_outputs(seed):
    net, example = random_network(seed)
    model = capture(net, example)
    expected = torch.utils._pytree.tree_leaves(model(example))
    folded = fold(model)
    for a, b in zip(expected, torch.utils._pytree.tree_leaves(folded(example)), strict=True):
        assert (a - b).abs().max() <= 1e-4 * (a.max() - a.min()).clamp(min=1e-6)
    assert not any("batch_norm" in str(node.target) for node in folded.graph.nodes)


def test_training_reaches_batch_norm_and_dropout():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).eval()
    model, x = capture(net, torch.randn(4, 1, 6, 6)), torch.randn(4, 1, 6, 6)
    assert torch.equal(model(x), net(x))
    torch.manual_seed(1)
    model.train()
    trained = model(x)
    torch.manual_seed(1)
    net.train()
    assert torch.equal(trained, net(x)), "as the user's own module trains, bit for bit"
    assert torch.equal(model.tensor("1.running_mean"), net[1].running_mean)


def test_devices_baked_in_follow_the_model():
    class Baked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x) + torch.zeros(3, device=x.device)

    model = capture(Baked(), torch.randn(2, 3)).to("meta")
    assert model(torch.randn(2, 3, device="meta")).device.type == "meta"


class Branching(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)


class InPlaceOnView(nn.Module):
    def forward(self, x):
        y = x + 1
        z = y.T
        F.relu_(y[:, 0])
        return z


class Lists(nn.Module):
    def forward(self, x):
        return x, 3


def with_nan() -> nn.Module:
    net = nn.Linear(3, 3)
    net.weight.data[1, 1] = torch.nan
    return net


@pytest.mark.parametrize(("net", "example", "sentence"), [
    (nn.Linear(3, 3), torch.tensor(1.0), "batch"),
    (nn.Linear(3, 3), [torch.randn(2, 3)], "the example is a list"),
    (nn.Linear(3, 3), (torch.randn(2, 3), 4), "the example holds a int"),
    (Branching(), torch.randn(2, 3), r"depends on data at test_capture.py:\d+"),
    (FixedBatch(), torch.randn(2, 3), "fixes the batch size"),
    (InPlaceOnView(), torch.randn(2, 3), "without the trailing underscore"),
    (Lists(), torch.randn(2, 3), "return tensors only"),
    (with_nan(), torch.randn(2, 3), "weight 'weight' holds NaN"),
    (nn.Linear(3, 3).half(), torch.randn(2, 3), "float16: quantizing starts from float32"),
    (nn.Linear(3, 3, device="meta"), torch.randn(2, 3), "meta device"),
    (nn.Linear(4, 3), torch.randn(2, 3), r"fails on the example \(mat1 .*: give inputs"),
    (nn.Linear(3, 3), torch.randn(2, 0), "axis of 0"),
])
def test_refusals_are_one_sentence(net, example, sentence):
    with pytest.raises(CaptureError, match=sentence) as caught:
        capture(net, example)
    assert "\n" not in str(caught.value)


class Named(nn.Module):
    """Layers called as attributes of torch's containers and of our own classes are."""

    def __init__(self):
        super().__init__()
        self.keys, self.values, self.items, self.pop = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.ReLU()
        self.graph, self.predicted, self.tensor, self.run = (nn.Linear(8, 8) for _ in range(4))
        self.shapes = nn.Parameter(torch.ones(8))

    def forward(self, x):
        x = self.items(self.pop(self.keys(x)) + self.values(x)) * self.shapes
        return self.run(self.tensor(self.predicted(self.graph(x))))


def test_layers_may_have_any_name():
    net, x = Named().eval(), torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    model = fold(capture(net, x))
    assert model.state_dict().keys() == net.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(model)(x), net(x))
    simulation = fb.calibrate(model, fb.plan(model, "w8a8"), [x])
    assert simulation.quantizer("keys.weight").site == "keys.weight"
    assert fb.lower(simulation).program.outputs == ("run",)

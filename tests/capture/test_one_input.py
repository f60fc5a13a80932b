"""Examples and inputs without a batch axis, batches of 1, and networks that take one size of batch alone."""

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.errors import CaptureError, DataError
from fewbits.program.inputs import with_batch_axis


def linear() -> nn.Linear:
    """The AIMET lab's layer."""
    layer = nn.Linear(4, 4, bias=False)
    layer.weight.data = torch.tensor([[0.25, -0.32, 1.58, 2.10], [-1.45, 1.82, -0.29, 3.78],
                                      [-2.72, -0.12, 2.24, -1.84], [1.93, 0.49, 0.00, -3.19]])
    return layer


VECTOR = torch.tensor([0.25, 0.17, -0.31, 0.55])


def test_the_labs_vector_goes_through_everything(tmp_path):
    net = linear()
    model = fb.fold(fb.capture(net, VECTOR))
    assert torch.allclose(model(VECTOR), net(VECTOR))
    assert torch.allclose(model(VECTOR[None]), net(VECTOR[None]))
    sim = fb.calibrate(model, fb.plan(model, "w8a8"), [VECTOR])
    program = fb.lower(sim)
    assert program(VECTOR).shape == sim(VECTOR).shape == (4,)
    assert torch.equal(program(VECTOR), program(VECTOR[None])[0])
    assert torch.equal(program.codes(VECTOR), program.codes(VECTOR[None])[0])
    assert fb.export_onnx(program, tmp_path / "net.onnx", verify=[VECTOR])
    assert torch.equal(program(VECTOR.repeat(3, 1))[2], program(VECTOR))


def test_a_batch_of_one_is_any_batch():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    model = fb.capture(net, torch.randn(1, 1, 4, 4))
    x = torch.randn(5, 1, 4, 4)
    assert torch.allclose(model(x), net(x), atol=1e-6)
    assert torch.allclose(model(x[0]), net(x)[0], atol=1e-6)


class OneImage(nn.Module):
    """Takes batches of its size alone."""

    def __init__(self, size: int = 1):
        super().__init__()
        self.size, self.conv, self.fc = size, nn.Conv2d(1, 2, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).view(self.size, -1))


@pytest.mark.parametrize("size", [1, 3])
def test_a_fixed_batch(size, tmp_path):
    net, x = OneImage(size).eval(), torch.randn(size, 1, 4, 4)
    with pytest.raises(CaptureError, match='batch="fixed"'):
        fb.capture(net, x)
    model = fb.fold(fb.capture(net, x, batch="fixed"))
    assert torch.equal(model(x), net(x))
    program = fb.lower(fb.calibrate(model, fb.plan(model, "w8a8"), [x, torch.randn(size, 1, 4, 4)]))
    assert fb.export_onnx(program, tmp_path / "net.onnx", verify=[x])
    program.save(tmp_path / "net.fewbits")
    assert torch.equal(fb.load(tmp_path / "net.fewbits", engine="reference")(x), program(x))
    with pytest.raises(DataError, match="the model takes"):
        program(torch.randn(2, 1, 4, 4))


def test_what_only_looks_like_one_input_is_left_alone():
    """Another rank, another size, or a batch axis beside one without."""
    shapes = {"a": (None, 4), "b": (None, 3, 3)}
    fits = {"a": torch.zeros(4), "b": torch.zeros(3, 3)}
    assert with_batch_axis(fits, shapes)[1]
    for other in ({"a": torch.zeros(2, 4)}, {"b": torch.zeros(3, 4)}, {"a": torch.tensor(1.0)}):
        given = fits | other
        same, alone = with_batch_axis(given, shapes)
        assert not alone
        assert same == given


def test_elementwise_networks_keep_their_batch():
    """A vector may be a batch of scalars: where the graph holds for any length, it is one."""
    model = fb.capture(nn.ReLU(), torch.tensor([-1.0, 2.0, 3.0]))
    assert model(torch.randn(7)).shape == (7,)

"""Sizes other than the example's: where a network takes them, its program does, with the same codes in every engine."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewbits.artifact.file import from_bytes, to_bytes
from fewbits.capture.capture import capture
from fewbits.capture.free_sizes import kept_axis, sizes_kept
from fewbits.engines.executable import Executable
from fewbits.engines.executors import Native
from fewbits.errors import DataError
from fewbits.fold.fold import fold
from fewbits.kernels import library
from fewbits.lower.lower import lower
from fewbits.program import reference
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.testing import differences


class Called(nn.Module):
    def __init__(self, use, **layers):
        super().__init__()
        self.layers, self.use = nn.ModuleDict(layers), use

    def forward(self, x):
        return self.use(self.layers, x)


def denoiser(layers, x):
    return x + layers["last"](F.relu(layers["norm"](layers["first"](x))))


def u_net(layers, x):
    high = F.relu(layers["first"](x))
    low = F.silu(layers["middle"](F.avg_pool2d(F.max_pool2d(high, 2), 3, 1, 1)))
    return layers["last"](torch.cat([high, layers["up"](low), F.interpolate(low, scale_factor=2.0)], 1))


def conv(inputs, outputs, size=3, **more):
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **more)


def text_reader(layers, x):
    features = F.max_pool2d(F.relu(layers["conv"](x)), 2)
    return layers["head"](layers["cells"](features.permute(0, 3, 1, 2).flatten(2))[0])


def over_time(layers, x):
    outputs = layers["cells"](x.transpose(0, 1))[0].transpose(0, 1)
    return layers["head"](outputs), torch.sigmoid(outputs[:, -1]), outputs[:, 0]


NETWORKS = {
    "denoiser": (lambda: Called(denoiser, first=conv(1, 6), norm=nn.BatchNorm2d(6), last=conv(6, 1)),
                 (3, 1, 12, 10), (2, 1, 7, 25)),
    "super resolution": (lambda: nn.Sequential(conv(1, 5, 5), nn.Tanh(), conv(5, 8), nn.PixelShuffle(2)),
                         (3, 1, 8, 10), (2, 1, 11, 5)),
    "u-net": (lambda: Called(u_net, first=conv(1, 4), middle=conv(4, 6), last=conv(16, 2),
                             up=nn.ConvTranspose2d(6, 6, 2, stride=2)), (3, 1, 12, 8), (2, 1, 6, 20)),
    "transposed": (lambda: nn.Sequential(conv(1, 4), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3, 2, 1, 1)), (3, 1, 6, 8),
                   (2, 1, 9, 5)),
    "sound": (lambda: nn.Sequential(nn.Conv1d(2, 4, 5, stride=2), nn.PReLU(4), nn.Conv1d(4, 3, 3, padding=1)),
              (3, 2, 21), (2, 2, 40)),
    "text reader": (lambda: Called(text_reader, conv=conv(1, 4), cells=nn.LSTM(12, 5, batch_first=True),
                                   head=nn.Linear(5, 3)), (3, 1, 6, 12), (2, 1, 6, 22)),
    "over time": (lambda: Called(over_time, cells=nn.GRU(4, 5, bidirectional=True), head=nn.Linear(10, 3)), (3, 6, 4),
                  (2, 17, 4)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4), nn.Softmax(-1)),
                   (3, 6, 4), (2, 11, 4)),
}


def program_of(name: str, recipe: str = "w8a8") -> tuple[nn.Module, Program, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make, shape, other = NETWORKS[name]
        net, x, longer = make().eval(), torch.randn(shape), torch.randn(other)
    model = fold(capture(net, x))
    return net, lower(calibrate(model, plan(model, recipe), [x, longer])), longer


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("name", NETWORKS)
def test_another_size_has_the_codes_of_the_reference_in_every_engine(name) -> None:
    net, program, x = program_of(name)
    inputs = {program.inputs[0]: x.numpy()}
    assert not differences(program, inputs)
    codes = reference.run(program, inputs)
    with torch.no_grad():
        wanted = net(x)
    for output, exact in zip(program.outputs, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        real = program.real(output, codes[output])
        assert real.shape == exact.shape
        assert np.square(real - exact.numpy()).sum() < 0.003 * float(exact.square().sum())
    if library.native() is not None:
        native = Native().prepare(program).run(inputs).codes
        assert all(np.array_equal(native[output], codes[output]) for output in program.outputs)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("recipe", ["w8", "dynamic-w8a8", "w8a8-signed"])
@pytest.mark.parametrize("name", ["denoiser", "over time"])
def test_other_recipes_at_another_size(name, recipe) -> None:
    _, program, x = program_of(name, recipe)
    assert not differences(program, {program.inputs[0]: x.numpy()})


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_file_keeps_what_is_free() -> None:
    _, program, x = program_of("denoiser")
    loaded = from_bytes(to_bytes(program), "").program
    assert loaded.values[program.inputs[0]].free == (2, 3)
    assert torch.equal(Executable(loaded)(x), Executable(program)(x))


FIXED = {
    "flattened": (lambda: nn.Sequential(conv(1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)), (3, 1, 8, 6)),
    "size in the code": (lambda: Called(lambda layers, x: F.interpolate(layers["conv"](x), size=(6, 6)),
                                        conv=conv(1, 2)), (3, 1, 6, 6)),
    "branch": (lambda: Called(lambda layers, x: layers["conv"](x) * (2 if x.shape[2] > 8 else 1), conv=conv(1, 2)),
               (3, 1, 8, 6)),
    "places added": (lambda: Called(lambda layers, x: layers["head"](x + torch.linspace(0, 1, 6)[:, None]),
                                    head=nn.Linear(4, 3)), (3, 6, 4)),
}


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("name", FIXED)
def test_a_network_of_one_size_refuses_others_in_a_sentence(name) -> None:
    make, shape = FIXED[name]
    torch.manual_seed(0)
    net, x = make().eval(), torch.randn(shape)
    model = fold(capture(net, x))
    program = Executable(lower(calibrate(model, plan(model, "w8a8"), [x])))
    with pytest.raises(DataError, match="but the model takes N×"):
        program(torch.randn(*shape[:-2], 2 * shape[-2], shape[-1]))


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_free_size_is_told_as_such() -> None:
    _, program, _ = program_of("denoiser")
    assert str(program.values["x"]) == "N×1×12…×10… float32"
    with pytest.raises(DataError, match="has shape 2×3×12×10, but the model takes N×1×any×any"):
        Executable(program)(torch.randn(2, 3, 12, 10))


@pytest.mark.parametrize(("before", "after", "axis", "place"), [
    ((None, 4, 6), (None, 1, 4, 6), 1, 2), ((None, 4, 6), (None, 24), 1, None), ((None, 3, 4, 6), (None, 3, 24), 1, 1),
    ((None, 6, 6), (None, 6), 1, None), ((None, 3, 5, 7), (None, 15, 7), 3, 2),
])
def test_where_a_reshape_leaves_an_axis(before, after, axis, place) -> None:
    assert kept_axis(before, after, axis) == place


def test_a_reshape_names_one_size_at_most() -> None:
    assert sizes_kept((None, 5, 4, 6), (None, 5, 24), (1,)) == (0, 0, 24)
    assert sizes_kept((None, 5, 6), (None, 1, 5, 6), (2,)) == (0, 1, -1, 6)
    assert sizes_kept((None, 5, 7, 6), (None, 1, 5, 7, 6), (2, 3)) is None

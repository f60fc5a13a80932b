"""Padding in front of an average pool: ONNX Runtime merges both, and refuses margins as wide as windows."""

import numpy as np
import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.engines.executable import Executable
from fewbits.engines.onnx_session import OnnxSession
from fewbits.errors import ExportError
from fewbits.writers.onnx.program import onnx_bytes, output_name
from fewbits.writers.onnx.twin import float_onnx_bytes

MARGINS = {"as wide": ((1, 0, 0, 2), {}), "wider": ((3, 3, 1, 0), {}), "narrower": ((1, 0, 0, 1), {}),
           "beside the pool's own": ((1, 1, 1, 1), {"padding": 1, "count_include_pad": False})}


@pytest.fixture(params=MARGINS)
def pooled(request):
    """A padded average pool, and inputs whose mean is not 0."""
    margins, arguments = MARGINS[request.param]
    torch.manual_seed(0)
    return nn.Sequential(nn.ZeroPad2d(margins), nn.AvgPool2d(2, **arguments)).eval(), torch.rand(2, 3, 6, 6) + 0.5


@pytest.mark.parametrize("level", ["off", "all"])
def test_the_float_twin_opens_and_pools_the_margins(pooled, level):
    net, x = pooled
    program = fb.quantize(net, x, [x]).program
    got = OnnxSession(float_onnx_bytes(program), level).run({program.inputs[0]: x.numpy()})
    np.testing.assert_allclose(*got.values(), net(x).numpy(), rtol=1e-6)


@pytest.mark.parametrize("form", ["integer", "qdq"])
@pytest.mark.parametrize("recipe", ["w8a8", "dynamic-w8a8"])
def test_files_open_and_give_the_program(pooled, recipe, form):
    net, x = pooled
    program = fb.quantize(net, x, [x], recipe=recipe).program
    got = OnnxSession(onnx_bytes(program, form)).run({program.inputs[0]: x.numpy()})[output_name(program.outputs[0])]
    expected = Executable(program, "reference")(x).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_model_that_does_not_open_is_a_sentence():
    with pytest.raises(ExportError, match=r"onnxruntime .* does not open the model that was written of this program"):
        OnnxSession(b"no model")

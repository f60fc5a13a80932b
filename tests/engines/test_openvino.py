"""OpenVINO, where it is installed: the codes of small networks, and one sentence for what it cannot do."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.engines.openvino_session import OpenVinoSession
from fewbits.errors import UnsupportedError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program import reference
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.testing import random_program
from fewbits.writers.onnx.program import onnx_bytes, output_name

installed = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed (pip install "
                                                                     "fewbits[openvino]): its codes are not compared")


class Tokens(nn.Module):
    """Patches with a token in front: the graph whose biases OpenVINO loses when the batch size is left open."""

    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Conv2d(5, 7, 3), nn.Parameter(torch.randn(1, 1, 7))

    def forward(self, x):
        rows = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(x.shape[0], -1, -1), rows], 1)


def tokens():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8, 8)
    model = fold(capture(Tokens().eval(), x))
    return lower(calibrate(model, plan(model, "w8a8"), [x])), {"x": x.numpy()}


def test_without_openvino_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UnsupportedError, match=r"not installed here: pip install fewbits\[openvino\]"):
        OpenVinoSession(b"")


@installed
@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_small_networks_give_their_codes(seed):
    made = random_program(seed)
    session = OpenVinoSession(onnx_bytes(made.program, "qdq", every_code=True))
    known = reference.run(made.program, made.inputs, tuple(node.name for node in made.program.nodes))
    actual = session.run(made.inputs)
    seen = [name for name in known if name in actual]
    assert seen
    for name in seen:
        assert np.array_equal(known[name], actual[name]), name


@installed
def test_a_fixed_batch_keeps_the_biases():
    program, inputs = tokens()
    session = OpenVinoSession(onnx_bytes(program, "qdq"))
    name = program.outputs[0]
    for images in (3, 2):
        some = {"x": inputs["x"][:images]}
        expected = program.real(name, reference.run(program, some)[name])
        assert np.array_equal(session.run(some)[output_name(name)], expected)


@installed
def test_what_it_cannot_read_is_one_sentence():
    made = random_program(1)
    with pytest.raises(UnsupportedError, match=r"QGemm.*form='qdq'") as caught:
        OpenVinoSession(onnx_bytes(made.program, "integer"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UnsupportedError, match="OpenVINO cannot read the model"):
        OpenVinoSession(b"no model")

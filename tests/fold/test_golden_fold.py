"""Batch norm folded into weights: the source documents' example, and torch's own fusion as oracle."""

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold


def test_bn_fusion(golden):
    g = golden("bn_fusion")
    linear, norm = nn.Linear(2, 3), nn.BatchNorm1d(3, eps=g["eps"])
    for tensor, values in ((linear.weight, g["w"]), (linear.bias, g["b"]), (norm.weight, g["gamma"]),
                           (norm.bias, g["beta"]), (norm.running_mean, g["mean"]), (norm.running_var, g["var"])):
        assert tensor is not None
        tensor.data = torch.tensor(values, dtype=torch.float32)
    x = torch.tensor([g["x"], g["x"]])
    model = fold(capture(nn.Sequential(linear, norm), x))
    assert [node.name for node in model.graph.nodes] == ["0"]
    np.testing.assert_allclose(model.tensor("0.weight").detach(), g["w_fused"], rtol=1e-6)
    np.testing.assert_allclose(model.tensor("0.bias").detach(), g["b_fused"], rtol=1e-6)
    np.testing.assert_allclose(model(x)[0].detach(), g["y"], rtol=1e-6)


def test_fold_is_torchs(tmp_path):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6)
    norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 0.5
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    net = nn.Sequential(conv, norm).eval()
    model = fold(capture(net, torch.randn(2, 3, 8, 8)))
    expected = fuse_conv_bn_eval(conv.eval(), norm.eval())
    torch.testing.assert_close(model.tensor("0.weight"), expected.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(model.tensor("0.bias"), expected.bias, rtol=1e-6, atol=1e-7)

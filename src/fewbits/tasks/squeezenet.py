"""SqueezeNet 1.1, with the layer names of its Caffe weights."""

import torch
from torch import Tensor, nn


class Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 expansions side by side.

    forward: [N, inner, H, W] -> [N, 2·expand, H, W]. Source: arXiv:1602.07360, §3.2.
    """

    def __init__(self, inner: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(inner, squeeze, 1)
        self.relu_squeeze1x1 = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.relu_expand1x1 = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu_expand3x3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu_squeeze1x1(self.squeeze1x1(x))
        wide = self.relu_expand1x1(self.expand1x1(x)), self.relu_expand3x3(self.expand3x3(x))
        return torch.cat(wide, 1)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1: float32 [N, 3, 227, 227], BGR bytes minus their mean -> logits float32 [N, 1000].

    Caffe's `fire2/squeeze1x1` is `fire2.squeeze1x1` here, as `load_weights` spells it.
    Source: Iandola et al. 2016, arXiv:1602.07360; version 1.1 of github.com/forresti/SqueezeNet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        self.relu_conv1 = nn.ReLU()
        self.pool1 = _pool()
        self.fire2 = Fire(64, 16, 64)
        self.fire3 = Fire(128, 16, 64)
        self.pool3 = _pool()
        self.fire4 = Fire(128, 32, 128)
        self.fire5 = Fire(256, 32, 128)
        self.pool5 = _pool()
        self.fire6 = Fire(256, 48, 192)
        self.fire7 = Fire(384, 48, 192)
        self.fire8 = Fire(384, 64, 256)
        self.fire9 = Fire(512, 64, 256)
        self.drop9 = nn.Dropout()
        self.conv10 = nn.Conv2d(512, 1000, 1)
        self.relu_conv10 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu_conv1(self.conv1(x)))
        x = self.pool3(self.fire3(self.fire2(x)))
        x = self.pool5(self.fire5(self.fire4(x)))
        x = self.fire9(self.fire8(self.fire7(self.fire6(x))))
        return self.relu_conv10(self.conv10(self.drop9(x))).mean((2, 3))


def squeezenet() -> SqueezeNet:
    """An untrained SqueezeNet 1.1 of 1 235 496 parameters (published ImageNet accuracy 58.2 %)."""
    return SqueezeNet()

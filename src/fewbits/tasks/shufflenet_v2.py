"""ShuffleNetV2."""

import torch
from torch import Tensor, nn

_BLOCKS = (4, 8, 4)
_STEM = 24


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves the groups of channels: [N, C, H, W] -> the same shape. Source: arXiv:1707.01083, fig. 1."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width).transpose(1, 2)
    return x.reshape(batch, channels, height, width)


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    layer = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
    return [layer, nn.BatchNorm2d(channels)]


def _pointwise(inner: int, outer: int) -> list[nn.Module]:
    return [nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]


class ShuffleBlock(nn.Module):
    """Half of the channels pass by; at stride 2 both halves are computed from all of the input.

    forward: [N, inner, H, W] -> [N, outer, ceil(H/stride), ceil(W/stride)]. Source: arXiv:1807.11164, fig. 3 c, d.
    """

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        half = outer // 2
        self.stride = stride
        self.branch1 = nn.Sequential(*(_depthwise(inner, 2) + _pointwise(inner, half) if stride == 2 else []))
        through = inner if stride == 2 else half
        self.branch2 = nn.Sequential(*_pointwise(through, half), *_depthwise(half, stride), *_pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        beside, through = (x, x) if self.stride == 2 else x.chunk(2, 1)
        return channel_shuffle(torch.cat((self.branch1(beside), self.branch2(through)), 1), 2)


def _stage(inner: int, outer: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        ShuffleBlock(inner, outer, 2), *(ShuffleBlock(outer, outer, 1) for _ in range(blocks - 1))
    )


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2: float32 [N, 3, 224, 224] -> logits float32 [N, classes]; names as in torchvision's weights.

    channels: of the three stages and of the last convolution. Source: Ma et al. 2018, arXiv:1807.11164, table 5.
    """

    def __init__(self, channels: tuple[int, int, int, int], classes: int = 1000) -> None:
        super().__init__()
        first, second, third, last = channels
        stem = nn.Conv2d(3, _STEM, 3, stride=2, padding=1, bias=False)
        self.conv1 = nn.Sequential(stem, nn.BatchNorm2d(_STEM), nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage2 = _stage(_STEM, first, _BLOCKS[0])
        self.stage3 = _stage(first, second, _BLOCKS[1])
        self.stage4 = _stage(second, third, _BLOCKS[2])
        self.conv5 = nn.Sequential(*_pointwise(third, last))
        self.fc = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(self.conv5(x).mean((2, 3)))


def shufflenet_v2_05() -> ShuffleNetV2:
    """An untrained ShuffleNetV2-x0.5 of 1 366 792 parameters (published ImageNet accuracy 60.3 %)."""
    return ShuffleNetV2((48, 96, 192, 1024))

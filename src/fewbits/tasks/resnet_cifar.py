"""The CIFAR-10 residual networks with parameter-free shortcuts."""

from torch import Tensor, nn
from torch.nn import functional as F


class ShrinkShortcut(nn.Module):
    """Every second pixel, and zero channels on both sides to widen: the shortcut that has no parameters.

    forward: [N, C, H, W] -> [N, C + 2·pad, ceil(H/2), ceil(W/2)]. Source: He et al. 2015, arXiv:1512.03385,
    §4.2, option A.
    """

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class BasicBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN, plus the shortcut, ReLU.

    forward: [N, inner, H, W] -> [N, outer, ceil(H/stride), ceil(W/stride)].
    Source: He et al. 2015, arXiv:1512.03385, fig. 2 and fig. 5 left.
    """

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.shortcut = nn.Identity() if inner == outer else ShrinkShortcut((outer - inner) // 2)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


def _stage(inner: int, outer: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(inner, outer, stride=1 if inner == outer else 2)
    return nn.Sequential(first, *(BasicBlock(outer, outer, stride=1) for _ in range(blocks - 1)))


class ResNetCifar(nn.Module):
    """A residual network of 6·blocks + 2 layers: float32 [N, 3, 32, 32] -> logits float32 [N, 10].

    Source: He et al. 2015, arXiv:1512.03385, §4.2. Names as in the weights of
    github.com/akamaster/pytorch_resnet_cifar10.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.pool(x)))


def resnet20() -> ResNetCifar:
    """An untrained ResNet-20 of 269 722 parameters (published CIFAR-10 accuracy 91.25 %)."""
    return ResNetCifar(blocks=3)


def resnet32() -> ResNetCifar:
    """An untrained ResNet-32 of 464 154 parameters (published CIFAR-10 accuracy 92.49 %)."""
    return ResNetCifar(blocks=5)


def resnet44() -> ResNetCifar:
    """An untrained ResNet-44 of 658 586 parameters (published CIFAR-10 accuracy 92.83 %)."""
    return ResNetCifar(blocks=7)


def resnet56() -> ResNetCifar:
    """An untrained ResNet-56 of 853 018 parameters (published CIFAR-10 accuracy 93.03 %)."""
    return ResNetCifar(blocks=9)

"""What the architectures of the zoo are put together from."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Example = Tensor | tuple[Tensor, ...]
Made = tuple[nn.Module, Example]


class Apply(nn.Module):
    """A function of tensors as a layer."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


class Sum(nn.Module):
    """The sum of what the branches make of the input."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        first, *others = (branch(x) for branch in self.branches)
        for other in others:
            first = first + other
        return first


class Product(Sum):
    """The product of what two branches make of the input."""

    def forward(self, x):
        one, other = (branch(x) for branch in self.branches)
        return one * other


class Concat(Sum):
    """What the branches make of the input, one behind the other along the channels."""

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


def residual(*layers: nn.Module) -> Sum:
    return Sum(nn.Identity(), nn.Sequential(*layers))


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def conv(
    inner: int,
    outer: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
    dilation: int = 1,
) -> nn.Sequential:
    """Convolution that keeps the size, batch norm, activation."""
    layer = nn.Conv2d(inner, outer, kernel, stride, kernel // 2 * dilation, dilation, groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outer), *([act()] if act else []))


def depthwise(channels: int, kernel: int = 3, stride: int = 1, act: type[nn.Module] | None = nn.ReLU) -> nn.Sequential:
    return conv(channels, channels, kernel, stride, channels, act)


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def squeeze_excite(channels: int, gate: type[nn.Module] = nn.Sigmoid, act: type[nn.Module] = nn.ReLU) -> Product:
    """Hu et al. 2017, arXiv:1709.01507."""
    inner = max(2, channels // 4)
    weights = chain(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), act(), nn.Conv2d(inner, channels, 1), gate()
    )
    return Product(nn.Identity(), weights)


def images(size: int = 16, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size)


def signals(channels: int = 4, length: int = 20) -> Tensor:
    return torch.randn(2, channels, length)


def tokens(vocabulary: int = 20, length: int = 9) -> Tensor:
    return torch.randint(vocabulary, (2, length))

"""Networks for phones and smaller: separable, shuffled, ghosted; keyword spotting."""

import torch
from torch import nn
from zoo_layers import Concat, Made, Sum, chain, conv, depthwise, head, images, residual, squeeze_excite


def squeezenet() -> Made:
    def fire(inner: int) -> nn.Module:
        return chain(conv(inner, 3, 1), Concat(conv(3, 4, 1), conv(3, 4)))

    return chain(
        nn.Conv2d(3, 6, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        fire(6),
        fire(8),
        nn.Conv2d(8, 5, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ), images(19)


def mobilenet_v1() -> Made:
    return chain(conv(3, 6, 3, 2), depthwise(6), conv(6, 8, 1), depthwise(8, 3, 2), conv(8, 12, 1), head(12)), images()


def _inverted(
    inner: int,
    outer: int,
    stride: int = 1,
    kernel: int = 3,
    act: type[nn.Module] = nn.ReLU6,
    excite: nn.Module | None = None,
) -> nn.Module:
    wide = 2 * inner
    layers = [
        conv(inner, wide, 1, act=act),
        depthwise(wide, kernel, stride, act),
        *([excite] if excite else []),
        conv(wide, outer, 1, act=None),
    ]
    return residual(*layers) if stride == 1 and inner == outer else chain(*layers)


def mobilenet_v2() -> Made:
    return chain(conv(3, 6, 3, 2, act=nn.ReLU6), _inverted(6, 8, 2), _inverted(8, 8), head(8)), images()


def mnasnet() -> Made:
    return chain(conv(3, 6, 3, 2), _inverted(6, 8, 2, 5, nn.ReLU), _inverted(8, 8, 1, 5, nn.ReLU), head(8)), images()


def mobilenet_v3() -> Made:
    excite = squeeze_excite(16, nn.Hardsigmoid)
    return chain(
        conv(3, 6, 3, 2, act=nn.Hardswish),
        _inverted(6, 8, 2, 3, nn.ReLU),
        _inverted(8, 8, 1, 5, nn.Hardswish, excite),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 12),
        nn.Hardswish(),
        nn.Dropout(0.2),
        nn.Linear(12, 5),
    ), images()


def efficientnet() -> Made:
    return chain(
        conv(3, 6, 3, 2, act=nn.SiLU),
        _inverted(6, 6, 1, 3, nn.SiLU, squeeze_excite(12, nn.Sigmoid, nn.SiLU)),
        _inverted(6, 8, 2, 5, nn.SiLU),
        head(8),
    ), images()


def efficientnet_lite() -> Made:
    return chain(conv(3, 6, 3, 2, act=nn.ReLU6), _inverted(6, 8, 2, 5), _inverted(8, 8, 1, 3), head(8)), images()


def lcnet() -> Made:
    """arXiv:2109.15099."""
    return chain(
        conv(3, 6, 3, 2, act=nn.Hardswish),
        depthwise(6, 3, 1, nn.Hardswish),
        conv(6, 8, 1, act=nn.Hardswish),
        depthwise(8, 5, 2, nn.Hardswish),
        squeeze_excite(8, nn.Hardsigmoid),
        conv(8, 8, 1, act=nn.Hardswish),
        head(8),
    ), images()


def _shuffle(x, groups: int):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class _ShuffleV1(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.first = conv(channels, channels, 1, groups=2)
        self.rest = chain(depthwise(channels, act=None), conv(channels, channels, 1, groups=2, act=None))

    def forward(self, x):
        return torch.relu(x + self.rest(_shuffle(self.first(x), 2)))


def shufflenet_v1() -> Made:
    return chain(conv(3, 8, 3, 2), _ShuffleV1(8), _ShuffleV1(8), head(8)), images()


class _ShuffleV2(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.body = chain(conv(half, half, 1), depthwise(half, act=None), conv(half, half, 1))

    def forward(self, x):
        one, two = x.chunk(2, dim=1)
        return _shuffle(torch.cat((one, self.body(two)), 1), 2)


def shufflenet_v2() -> Made:
    return chain(
        conv(3, 8, 3, 2), nn.MaxPool2d(3, 2, 1), _ShuffleV2(8), _ShuffleV2(8), conv(8, 12, 1), head(12)
    ), images()


class _Ghost(nn.Module):
    """Half of the channels made cheaply from the other half: arXiv:1911.11907."""

    def __init__(self, inner: int, outer: int, act: type[nn.Module] | None):
        super().__init__()
        half = (outer + 1) // 2
        self.first, self.cheap, self.outer = conv(inner, half, 1, act=act), depthwise(half, act=act), outer

    def forward(self, x):
        y = self.first(x)
        return torch.cat([y, self.cheap(y)], 1)[:, : self.outer]


def ghostnet() -> Made:
    return chain(conv(3, 6, 3, 2), residual(_Ghost(6, 11, nn.ReLU), _Ghost(11, 6, None)), head(6)), images()


class _MixConv(nn.Module):
    """A kernel size for each part of the channels: arXiv:1907.09595."""

    def __init__(self, sizes: tuple[int, ...]):
        super().__init__()
        self.sizes = list(sizes)
        self.parts = nn.ModuleList(depthwise(size, 3 + 2 * i) for i, size in enumerate(sizes))

    def forward(self, x):
        return torch.cat(
            [part(piece) for part, piece in zip(self.parts, torch.split(x, self.sizes, 1), strict=True)], 1
        )


def mixnet() -> Made:
    return chain(conv(3, 7, 3, 2), _MixConv((4, 3)), conv(7, 8, 1), head(8)), images()


def xception() -> Made:
    """arXiv:1610.02357."""
    body = chain(
        nn.ReLU(),
        depthwise(6, act=None),
        conv(6, 8, 1),
        depthwise(8, act=None),
        conv(8, 8, 1, act=None),
        nn.MaxPool2d(3, 2, 1),
    )
    return chain(conv(3, 6), Sum(body, conv(6, 8, 1, 2, act=None)), head(8)), images()


def ds_cnn() -> Made:
    """Keyword spotting on 10 coefficients by 25 frames: Zhang et al. 2017, arXiv:1711.07128."""
    stem = chain(nn.Conv2d(1, 8, (10, 4), (2, 2), (5, 1), bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
    return chain(
        stem,
        depthwise(8),
        conv(8, 8, 1),
        depthwise(8),
        conv(8, 8, 1),
        nn.AvgPool2d((13, 5)),
        nn.Flatten(),
        nn.Linear(8, 12),
    ), torch.randn(2, 1, 25, 10)


def person_detection() -> Made:
    """MobileNetV1-0.25 on grey images with a padded stride, as TFLite Micro's example."""
    return chain(
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(1, 8, 3, 2),
        nn.ReLU6(),
        depthwise(8, act=nn.ReLU6),
        conv(8, 12, 1, act=nn.ReLU6),
        nn.AvgPool2d(8),
        nn.Conv2d(12, 2, 1),
        nn.Flatten(),
    ), images(16, 1)


def anomaly_autoencoder() -> Made:
    """Dense layers with batch norm, MLPerf Tiny's fourth."""

    def dense(inner: int, outer: int) -> nn.Module:
        return chain(nn.Linear(inner, outer), nn.BatchNorm1d(outer), nn.ReLU())

    return chain(dense(40, 16), dense(16, 4), dense(4, 16), nn.Linear(16, 40)), torch.randn(3, 40)


NETWORKS = (
    squeezenet,
    mobilenet_v1,
    mobilenet_v2,
    mnasnet,
    mobilenet_v3,
    efficientnet,
    efficientnet_lite,
    lcnet,
    shufflenet_v1,
    shufflenet_v2,
    ghostnet,
    mixnet,
    xception,
    ds_cnn,
    person_detection,
    anomaly_autoencoder,
)

"""Image classifiers of the classic kind: plain chains, inceptions, residual and dense networks."""

import torch
from torch import nn
from torch.nn import functional as F
from zoo_layers import (
    Apply,
    Concat,
    Made,
    Product,
    Sum,
    chain,
    conv,
    depthwise,
    head,
    images,
    residual,
    squeeze_excite,
)


def lenet_tanh() -> Made:
    """LeCun et al. 1998, as it was."""
    return chain(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.Tanh(),
        nn.Linear(12, 5),
    ), images(16, 1)


def alexnet() -> Made:
    return chain(
        nn.Conv2d(3, 8, 7, 2, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 12, 5, padding=2, groups=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(12, 16),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(16, 5),
    ), images(32)


def alexnet_lrn() -> Made:
    """With the local response normalization of Krizhevsky et al. 2012."""
    return chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2), head(8)), images()


def vgg11() -> Made:
    layers, channels = [], 3
    for width in (4, 8, "M", 8, 8, "M"):
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    return chain(*layers, nn.Flatten(), nn.Linear(8 * 16, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5)), images()


def vgg16_bn() -> Made:
    return chain(
        conv(3, 4),
        conv(4, 4),
        nn.MaxPool2d(2),
        conv(4, 8),
        conv(8, 8),
        conv(8, 8),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 5),
    ), images()


def network_in_network() -> Made:
    """Lin et al. 2013, arXiv:1312.4400."""
    return chain(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(6, 5, 1),
        nn.ReLU(),
        nn.AvgPool2d(8),
        nn.Flatten(),
    ), images()


def all_convolutional() -> Made:
    """Springenberg et al. 2014, arXiv:1412.6806."""
    return chain(conv(3, 6), conv(6, 6, stride=2), conv(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), images()


def _inception(inner: int) -> Concat:
    return Concat(
        conv(inner, 4, 1),
        chain(conv(inner, 3, 1), conv(3, 4)),
        chain(conv(inner, 2, 1), conv(2, 4, 5)),
        chain(nn.MaxPool2d(3, 1, 1), conv(inner, 4, 1)),
    )


def googlenet() -> Made:
    """Szegedy et al. 2014, arXiv:1409.4842."""
    return chain(conv(3, 6, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), _inception(6), _inception(16), head(16)), images(
        32
    )


def inception_v3() -> Made:
    """Factored convolutions and average pooling beside them: Szegedy et al. 2015, arXiv:1512.00567."""

    def factored(inner: int, outer: int) -> nn.Module:
        return chain(
            nn.Conv2d(inner, outer, (1, 7), padding=(0, 3)),
            nn.ReLU(),
            nn.Conv2d(outer, outer, (7, 1), padding=(3, 0)),
            nn.BatchNorm2d(outer, eps=1e-3),
            nn.ReLU(),
        )

    block = Concat(conv(6, 4, 1), factored(6, 4), chain(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(6, 4, 1)))
    reduce = Concat(conv(12, 4, 3, 2), nn.MaxPool2d(3, 2, 1))
    return chain(conv(3, 6), block, reduce, head(16)), images()


def inception_resnet() -> Made:
    """Residuals scaled before they are added: arXiv:1602.07261."""
    block = Sum(nn.Identity(), chain(Concat(conv(6, 3, 1), conv(6, 3)), nn.Conv2d(6, 6, 1), Apply(lambda x: x * 0.17)))
    return chain(conv(3, 6), block, nn.ReLU(), head(6)), images()


def _basic(inner: int, outer: int, stride: int = 1) -> nn.Module:
    shortcut = nn.Identity() if inner == outer else conv(inner, outer, 1, stride, act=None)
    return chain(
        Sum(chain(conv(inner, outer, 3, stride), conv(outer, outer, act=None)), shortcut), nn.ReLU(inplace=True)
    )


def resnet_basic() -> Made:
    return chain(conv(3, 6, 7, 2), nn.MaxPool2d(3, 2, 1), _basic(6, 6), _basic(6, 8, 2), head(8)), images(32)


def _bottleneck(inner: int, middle: int, outer: int, stride: int = 1, groups: int = 1, *extra: nn.Module) -> nn.Module:
    body = chain(
        conv(inner, middle, 1), conv(middle, middle, 3, stride, groups), conv(middle, outer, 1, act=None), *extra
    )
    shortcut = nn.Identity() if inner == outer and stride == 1 else conv(inner, outer, 1, stride, act=None)
    return chain(Sum(body, shortcut), nn.ReLU())


def resnet_bottleneck() -> Made:
    return chain(conv(3, 8), _bottleneck(8, 4, 12, 2), _bottleneck(12, 4, 12), head(12)), images()


def resnext() -> Made:
    return chain(conv(3, 8), _bottleneck(8, 8, 12, 2, 4), _bottleneck(12, 8, 12, 1, 4), head(12)), images()


def se_resnet() -> Made:
    return chain(conv(3, 8), _bottleneck(8, 4, 12, 2, 1, squeeze_excite(12)), head(12)), images()


def resnet_d() -> Made:
    """Average pooling in the shortcut: He et al. 2018, arXiv:1812.01187."""
    shortcut = chain(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), conv(6, 8, 1, act=None))
    return chain(conv(3, 6), Sum(chain(conv(6, 8, 3, 2), conv(8, 8, act=None)), shortcut), nn.ReLU(), head(8)), images()


def resnet_preact() -> Made:
    """Norm and activation first: He et al. 2016, arXiv:1603.05027."""

    def block(channels: int) -> nn.Module:
        return residual(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    return chain(nn.Conv2d(3, 6, 3, padding=1), block(6), block(6), nn.BatchNorm2d(6), nn.ReLU(), head(6)), images()


def wide_resnet() -> Made:
    return chain(
        conv(3, 4), _basic(4, 16), nn.Dropout(0.3), _basic(16, 16), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 5)
    ), images()


class _Dense(nn.Module):
    """Each layer reads all before it: Huang et al. 2016, arXiv:1608.06993."""

    def __init__(self, channels: int, growth: int, count: int):
        super().__init__()
        self.layers = nn.ModuleList(
            chain(
                nn.BatchNorm2d(channels + i * growth), nn.ReLU(), nn.Conv2d(channels + i * growth, growth, 3, padding=1)
            )
            for i in range(count)
        )

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet() -> Made:
    transition = chain(nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 6, 1), nn.AvgPool2d(2))
    return chain(
        nn.Conv2d(3, 6, 3, padding=1),
        _Dense(6, 3, 2),
        transition,
        _Dense(6, 3, 2),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        head(12),
    ), images()


class _Res2(nn.Module):
    """Groups of channels, each with what the one before made of its own: arXiv:1904.01169."""

    def __init__(self, width: int):
        super().__init__()
        self.convs = nn.ModuleList(conv(width, width) for _ in range(2))

    def forward(self, x):
        parts = x.chunk(3, 1)
        made = [parts[0]]
        for layer, part in zip(self.convs, parts[1:], strict=True):
            made.append(layer(part + made[-1]))
        return torch.cat(made, 1)


def res2net() -> Made:
    return chain(conv(3, 6), residual(_Res2(2), conv(6, 6, 1, act=None)), nn.ReLU(), head(6)), images()


class _Selective(nn.Module):
    """Softmax between two kernel sizes, per channel: arXiv:1903.06586."""

    def __init__(self, channels: int):
        super().__init__()
        self.three, self.five = conv(channels, channels), conv(channels, channels, 3, dilation=2)
        self.squeeze, self.choose = nn.Linear(channels, 4), nn.Linear(4, 2 * channels)

    def forward(self, x):
        both = torch.stack([self.three(x), self.five(x)], 1)
        weights = self.choose(F.relu(self.squeeze(both.sum(1).mean((2, 3)))))
        weights = weights.view(x.shape[0], 2, x.shape[1], 1, 1).softmax(1)
        return (both * weights).sum(1)


def selective_kernel() -> Made:
    return chain(conv(3, 6), _Selective(6), head(6)), images()


class _Cbam(nn.Module):
    """Attention over channels, then over places: arXiv:1807.06521."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp = chain(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, channels, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        x = x * torch.sigmoid(self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(F.adaptive_max_pool2d(x, 1)))
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(seen))


def cbam() -> Made:
    return chain(conv(3, 6), _Cbam(6), head(6)), images()


class _Eca(nn.Module):
    """A convolution over the channels' means: arXiv:1910.03151."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        means = x.mean((2, 3)).unsqueeze(1)
        return x * self.conv(means).sigmoid().transpose(1, 2).unsqueeze(3)


def eca_resnet() -> Made:
    return chain(conv(3, 6), residual(conv(6, 6, act=None), _Eca()), nn.ReLU(), head(6)), images()


def repvgg() -> Made:
    """Three branches in training form: Ding et al. 2021, arXiv:2101.03697."""

    def block(channels: int) -> nn.Module:
        return chain(
            Sum(conv(channels, channels, act=None), conv(channels, channels, 1, act=None), nn.BatchNorm2d(channels)),
            nn.ReLU(),
        )

    return chain(conv(3, 6, 3, 2), block(6), block(6), head(6)), images()


class _Fractal(nn.Module):
    """Columns joined by their mean: Larsson et al. 2016, arXiv:1605.07648."""

    def __init__(self, channels: int):
        super().__init__()
        self.short, self.long = conv(channels, channels), chain(conv(channels, channels), conv(channels, channels))

    def forward(self, x):
        return (self.short(x) + self.long(x)) / 2


def fractalnet() -> Made:
    return chain(conv(3, 6), _Fractal(6), nn.MaxPool2d(2), _Fractal(6), head(6)), images()


class _Highway(nn.Module):
    """gate·f(x) + (1 − gate)·x: Srivastava et al. 2015, arXiv:1505.00387."""

    def __init__(self, width: int):
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        gate = torch.sigmoid(self.gate(x))
        return gate * F.relu(self.transform(x)) + (1 - gate) * x


def highway() -> Made:
    return chain(nn.Flatten(), nn.Linear(48, 12), _Highway(12), _Highway(12), nn.Linear(12, 5)), images(4)


def darknet() -> Made:
    """Leaky ReLU throughout: YOLOv3's backbone, arXiv:1804.02767."""

    def leaky(inner: int, outer: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        return chain(conv(inner, outer, kernel, stride, act=None), nn.LeakyReLU(0.1))

    return chain(leaky(3, 6), leaky(6, 8, 3, 2), residual(leaky(8, 4, 1), leaky(4, 8)), head(8)), images()


def csp_darknet() -> Made:
    """Cross-stage partial connections with SiLU: arXiv:1911.11929."""

    def act(inner: int, outer: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        return conv(inner, outer, kernel, stride, act=nn.SiLU)

    stage = Concat(act(6, 4, 1), chain(act(6, 4, 1), residual(act(4, 4, 1), act(4, 4))))
    return chain(act(3, 6, 3, 2), stage, act(8, 8, 1), head(8)), images()


def vovnet() -> Made:
    """One-shot aggregation with hard-sigmoid attention: arXiv:1911.06667."""

    class OneShot(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.first, self.second = conv(channels, 4), conv(4, 4)
            self.join = conv(channels + 8, channels, 1)
            self.attend = nn.Conv2d(channels, channels, 1)

        def forward(self, x):
            one = self.first(x)
            y = self.join(torch.cat([x, one, self.second(one)], 1))
            return x + y * F.hardsigmoid(self.attend(y.mean((2, 3), keepdim=True)))

    return chain(conv(3, 6), OneShot(6), head(6)), images()


def regnet() -> Made:
    """Grouped bottlenecks with squeeze-and-excite: arXiv:2003.13678."""
    return chain(conv(3, 8, 3, 2), _bottleneck(8, 8, 8, 1, 2, squeeze_excite(8)), head(8)), images()


def convmixer() -> Made:
    """arXiv:2201.09792."""
    return chain(
        nn.Conv2d(3, 8, 4, 4),
        nn.GELU(),
        nn.BatchNorm2d(8),
        residual(depthwise(8, 5, act=nn.GELU)),
        conv(8, 8, 1, act=nn.GELU),
        head(8),
    ), images()


class _ConvNext(nn.Module):
    """Liu et al. 2022, arXiv:2201.03545."""

    def __init__(self, width: int):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.shrink(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> Made:
    return chain(nn.Conv2d(3, 8, 4, 4), _ConvNext(8), _ConvNext(8), head(8)), images()


def dual_path() -> Made:
    """Residual and dense at once, with slices: arXiv:1707.01629."""

    class DualPath(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = conv(8, 9)

        def forward(self, x):
            y = self.body(x)
            return torch.cat([x[:, :6] + y[:, :6], x[:, 6:], y[:, 6:]], 1)

    return chain(conv(3, 8), DualPath(), head(11)), images()


def maxout() -> Made:
    """Goodfellow et al. 2013, arXiv:1302.4389."""
    return chain(nn.Conv2d(3, 12, 3, padding=1), Apply(lambda x: torch.maximum(*x.chunk(2, 1))), head(6)), images()


def high_resolution() -> Made:
    """Two resolutions that exchange: arXiv:1908.07919."""

    class Exchange(nn.Module):
        def __init__(self):
            super().__init__()
            self.high, self.low = conv(6, 6), conv(6, 8, 3, 2)
            self.down, self.up = conv(6, 8, 3, 2, act=None), conv(8, 6, 1, act=None)

        def forward(self, x):
            high, low = self.high(x), self.low(x)
            up = F.interpolate(self.up(low), scale_factor=2.0, mode="nearest")
            return torch.cat([F.relu(high + up).mean((2, 3)), F.relu(low + self.down(high)).mean((2, 3))], 1)

    return chain(conv(3, 6), Exchange(), nn.Linear(14, 5)), images()


def gated_convolution() -> Made:
    return chain(
        conv(3, 6), Product(nn.Conv2d(6, 6, 3, padding=1), chain(nn.Conv2d(6, 6, 3, padding=1), nn.Sigmoid())), head(6)
    ), images()


NETWORKS = (
    lenet_tanh,
    alexnet,
    alexnet_lrn,
    vgg11,
    vgg16_bn,
    network_in_network,
    all_convolutional,
    googlenet,
    inception_v3,
    inception_resnet,
    resnet_basic,
    resnet_bottleneck,
    resnext,
    se_resnet,
    resnet_d,
    resnet_preact,
    wide_resnet,
    densenet,
    res2net,
    selective_kernel,
    cbam,
    eca_resnet,
    repvgg,
    fractalnet,
    highway,
    darknet,
    csp_darknet,
    vovnet,
    regnet,
    convmixer,
    convnext,
    dual_path,
    maxout,
    high_resolution,
    gated_convolution,
)

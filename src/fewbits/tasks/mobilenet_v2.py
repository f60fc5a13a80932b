"""MobileNetV2 with batch norm already folded, as the TensorFlow weights have it."""

from torch import Tensor, nn

# (expansion, channels, blocks, stride of the first block): table 2 of the paper.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(
    inner: int, outer: int, size: int, stride: int = 1, groups: int = 1, clamp: bool = True
) -> nn.Sequential:
    """A convolution with bias and, unless `clamp` is off, ReLU6.

    TensorFlow's "same" padding at stride 2 on an even image pads right and bottom only: an explicit layer.
    """
    layers: list[nn.Module] = []
    padding = size // 2
    if stride == 2:
        layers.append(nn.ZeroPad2d((0, 1, 0, 1)))
        padding = 0
    layers.append(nn.Conv2d(inner, outer, size, stride=stride, padding=padding, groups=groups))
    if clamp:
        layers.append(nn.ReLU6())
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; added to its input where shapes agree.

    forward: [N, inner, H, W] -> [N, outer, H/stride, W/stride]. Source: arXiv:1801.04381, §3.4.
    """

    def __init__(self, inner: int, outer: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        expand = [_conv(inner, wide, 1)] if expansion > 1 else []
        depthwise = _conv(wide, wide, 3, stride=stride, groups=wide)
        self.body = nn.Sequential(*expand, depthwise, _conv(wide, outer, 1, clamp=False))
        self.residual = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2-1.0 at 224: float32 [N, 3, 224, 224] in -1..1 -> logits float32 [N, 1001].

    Class 0 is TensorFlow's background: ImageNet's class k is output k + 1. Without batch norm it is for
    weights that were trained elsewhere, not for training from scratch. Source: Sandler et al. 2018,
    arXiv:1801.04381.
    """

    def __init__(self) -> None:
        super().__init__()
        features: list[nn.Module] = [_conv(3, 32, 3, stride=2)]
        channels = 32
        for expansion, outer, blocks, stride in _STAGES:
            for block in range(blocks):
                features.append(InvertedResidual(channels, outer, stride if block == 0 else 1, expansion))
                channels = outer
        features.append(_conv(channels, 1280, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Linear(1280, 1001)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2() -> MobileNetV2:
    """An untrained MobileNetV2-1.0 of 3 489 097 parameters."""
    return MobileNetV2()

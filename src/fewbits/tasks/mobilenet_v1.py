"""MobileNetV1 with live batch norm, of any width."""

from torch import Tensor, nn

# (channels at width 1, stride) of the separable blocks, by stage: table 1 of the paper.
_STAGES = (
    ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    ((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    ((1024, 2), (1024, 1)),
)
_STEM = 32


def _stem(outer: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, outer, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())


def _separable(inner: int, outer: int, stride: int) -> nn.Sequential:
    """Depthwise 3x3 and pointwise 1x1: [N, inner, H, W] -> [N, outer, ceil(H/stride), ceil(W/stride)]."""
    return nn.Sequential(
        nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, outer, 1, bias=False),
        nn.BatchNorm2d(outer),
        nn.ReLU(),
    )


class MobileNetV1(nn.Module):
    """Depthwise separable convolutions: float32 [N, 3, 224, 224] -> logits float32 [N, classes].

    width: multiplies every channel count. Source: Howard et al. 2017, arXiv:1704.04861, table 1.
    """

    def __init__(self, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        channels = int(_STEM * width)
        stages: list[nn.Sequential] = []
        for number, stage in enumerate(_STAGES):
            blocks = [_stem(channels)] if number == 0 else []
            for outer, stride in stage:
                blocks.append(_separable(channels, int(outer * width), stride))
                channels = int(outer * width)
            stages.append(nn.Sequential(*blocks))
        self.stage1, self.stage2, self.stage3 = stages
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stage3(self.stage2(self.stage1(x))).mean((2, 3)))


def mobilenet_v1() -> MobileNetV1:
    """An untrained MobileNetV1-1.0 of 4 231 976 parameters (published ImageNet accuracy 70.6 %)."""
    return MobileNetV1()


def mobilenet_v1_025() -> MobileNetV1:
    """An untrained MobileNetV1-0.25 of 470 072 parameters (published ImageNet accuracy 50.6 %)."""
    return MobileNetV1(width=0.25)

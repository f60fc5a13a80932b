"""Networks to measure the time of: ours, ResNet-18, and those of timm where it is installed. Weights are random: they
do not change the time."""

import importlib.util
from dataclasses import dataclass

import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.tasks.registry import TASKS
from fewbits.tasks.training import initialised

OURS = ("lenet5", "resnet20", "mobilenet_v2", "squeezenet")
ZOO = ("mobilenetv3_small_100", "efficientnet_b0", "convnext_atto", "vit_tiny_patch16_224",
       "swin_tiny_patch4_window7_224", "mobilevit_xxs")


@dataclass(frozen=True, eq=False)
class Network:
    """A float network and a batch for it."""

    net: nn.Module
    x: torch.Tensor

    def program(self, recipe: str) -> Program:
        """Its integers."""
        model = fold(capture(self.net, self.x))
        return lower(calibrate(model, plan(model, recipe), [self.x]))


def names() -> tuple[str, ...]:
    """All that can be measured here."""
    return (*OURS, "resnet18", *(ZOO if importlib.util.find_spec("timm") is not None else ()))


def network(name: str, batch: int) -> Network:
    """One of ours, ResNet-18, or one of timm; and at least 2 inputs."""
    if name in TASKS:
        task = TASKS[name]
        assert task.example_shape is not None
        net, shape = initialised(task.build, seed=0).eval(), task.example_shape
    elif name == "resnet18":
        net, shape = initialised(resnet18, seed=0).eval(), (3, 224, 224)
    else:
        import timm  # pyright: ignore[reportMissingImports]  measured where it is installed

        torch.manual_seed(0)
        net = timm.create_model(name, pretrained=False).eval()
        shape = net.default_cfg["input_size"]
    return Network(net, torch.randn(max(batch, 2), *shape, generator=torch.Generator().manual_seed(1)))


class _Block(nn.Module):
    def __init__(self, channels: int, outs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs), nn.ReLU(),
            nn.Conv2d(outs, outs, 3, 1, 1, bias=False), nn.BatchNorm2d(outs))
        self.shortcut = nn.Identity() if stride == 1 and channels == outs else nn.Sequential(
            nn.Conv2d(channels, outs, 1, stride, bias=False), nn.BatchNorm2d(outs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    """He et al. 2016, arXiv:1512.03385, table 1."""
    blocks = [_Block(channels, outs, stride) for channels, outs, stride in (
        (64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2),
        (512, 512, 1))]
    return nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
                         *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))

"""Caffe's "full" CIFAR-10 network, the one of Ristretto's tables."""

from collections import OrderedDict

from torch import Tensor, nn


class LocalResponseNorm(nn.Module):
    """Caffe's LRN within a channel: x · (1 + alpha · mean of x² over size×size)^-beta, padding counted as 0.

    forward: [N, C, H, W] -> the same shape. torch's own LRN is the other kind, across channels.
    Source: BVLC Caffe, src/caffe/layers/lrn_layer.cpp, WITHIN_CHANNEL.
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5, beta: float = 0.75) -> None:
        super().__init__()
        self.mean = nn.AvgPool2d(size, stride=1, padding=(size - 1) // 2)
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.alpha * self.mean(x * x)).pow(-self.beta)


def caffe_cifar10_full(norm: bool = True) -> nn.Sequential:
    """An untrained network of 89 578 parameters with the layer names of the prototxt: conv1, conv2, conv3, ip1.

    forward: float32 [N, 3, 32, 32], bytes minus their mean -> logits float32 [N, 10]. Pools are 3 wide at stride 2 and
    round up, as Caffe's do: 32 -> 16 -> 8 -> 4. norm: off leaves out the local response normalization.
    Source: BVLC Caffe, examples/cifar10/cifar10_full_train_test.prototxt (about 81 %; Ristretto 81.69 %).
    """
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(3, 32, 5, padding=2)),
        ("pool1", nn.MaxPool2d(3, stride=2, ceil_mode=True)),
        ("relu1", nn.ReLU()),
        ("norm1", LocalResponseNorm()),
        ("conv2", nn.Conv2d(32, 32, 5, padding=2)),
        ("relu2", nn.ReLU()),
        ("pool2", nn.AvgPool2d(3, stride=2, ceil_mode=True)),
        ("norm2", LocalResponseNorm()),
        ("conv3", nn.Conv2d(32, 64, 5, padding=2)),
        ("relu3", nn.ReLU()),
        ("pool3", nn.AvgPool2d(3, stride=2, ceil_mode=True)),
        ("flatten", nn.Flatten()),
        ("ip1", nn.Linear(1024, 10)),
    ]
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers if norm or not name.startswith("norm")))

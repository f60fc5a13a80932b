"""The small network of the demo: every structure that matters to a quantizer, trained in seconds."""

from torch import Tensor, nn


class DigitsNet(nn.Module):
    """Convolutions with batch norm, a residual add, max and average pooling, a linear head.

    forward: float32 [N, 1, 8, 8] -> logits float32 [N, 10]; 10 810 parameters. Residual block
    as He et al. 2015, arXiv:1512.03385, fig. 2; sized for the 8x8 digits of scikit-learn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.relu = nn.ReLU()
        self.tail = nn.Sequential(
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.relu(self.body(x) + x)
        return self.tail(x)


def digits_net() -> DigitsNet:
    """An untrained `DigitsNet`: float32 [N, 1, 8, 8] -> logits [N, 10]."""
    return DigitsNet()

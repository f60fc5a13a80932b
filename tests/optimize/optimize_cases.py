"""Networks and simulations that the tests of repairs share."""

import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan


class Chained(nn.Module):
    """Convolutions of every kind in chains, a residual that breaks one, pooling and flattening on the way."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), activation())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), activation())
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.grouped = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), activation(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 9, 10), activation(), nn.Linear(10, 4, bias=False))

    def forward(self, x):
        x = self.first(x)
        return self.head(self.grouped(torch.relu(x + self.point(self.depthwise(x)))))


def network(seed=0, activation=nn.ReLU):
    """A Chained with batch norms of random statistics, as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Chained(activation).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.3, 2),
                                      (module.weight.data, 0.3, 1.5), (module.bias.data, -0.5, 3)):
                tensor.uniform_(low, high, generator=generator)
    return net


def batches(count=4, size=16):
    return [torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def simulation(recipe="w4a8", seed=0, activation=nn.ReLU):
    model = fold(capture(network(seed, activation), batches()[0][:2]))
    return calibrate(model, plan(model, recipe), batches())


def outputs(model):
    with torch.no_grad():
        return torch.cat([model(x) for x in batches()])


def error(sim, truth):
    """Squared distance of the simulated outputs from the float ones."""
    return float((outputs(sim) - truth).square().sum())

"""Parts of random networks: convolutions of every kind, batch norm, what makes images larger."""

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.testing.growing import Growing, follow


def conv_layer(g: Growing, keep: bool = False) -> nn.Module:
    """A convolution of any kind; keep: same shape out as in."""
    kernel = (g.between(1, min(4, g.size[0])), g.between(1, min(4, g.size[1])))
    groups = g.pick(1, 1, g.channels)
    out = g.channels if keep else groups * g.between(1, 4) if groups > 1 else g.between(1, 9)
    bias = g.pick(True, False)
    if keep:
        return nn.Conv2d(g.channels, out, kernel, padding="same", groups=groups, bias=bias)
    stride, padding = g.pick(1, 1, 2, (1, 2)), g.pick(0, 1, (1, 0))
    dilation = 2 if max(kernel) == 2 and min(g.size) > 4 and g.pick(True, False) else 1
    layer = nn.Conv2d(g.channels, out, kernel, stride, padding, dilation, groups, bias)
    follow(g, layer)
    return layer


def norm(g: Growing) -> nn.Module:
    norm = nn.BatchNorm2d(g.channels)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(g.rng.uniform(0.3, 1.7, tensor.shape)))
    norm.weight.data *= torch.from_numpy(g.rng.choice([-1.0, 1.0], g.channels)).float()
    return norm


def activation(g: Growing) -> nn.Module:
    return g.pick(nn.ReLU(), nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.7), nn.Identity())


def conv(g: Growing) -> nn.Module:
    layers = [conv_layer(g)]
    if g.pick(True, False):
        layers.append(norm(g))
    return nn.Sequential(*layers, activation(g), nn.Dropout())


def row_norm(g: Growing) -> nn.Module:
    """Normalised over channels in groups, over each channel, over rows or the whole image."""
    groups = g.pick(*(groups for groups in range(1, g.channels + 1) if g.channels % groups == 0))
    over = nn.GroupNorm(groups, g.channels) if g.size == (1, 1) else nn.InstanceNorm2d(g.channels, affine=True)
    made = g.pick(over, nn.GroupNorm(groups, g.channels), nn.LayerNorm(list(g.size)),
                  nn.LayerNorm([g.channels, *g.size]))
    for name, tensor in made.state_dict().items():
        tensor.copy_(torch.from_numpy(g.rng.normal(1 if name == "weight" else 0, 0.5, tensor.shape)))
    return nn.Sequential(made, activation(g))


def lone_norm(g: Growing) -> nn.Module:
    return nn.Sequential(nn.ReLU(), norm(g), activation(g))


def grow(g: Growing) -> nn.Module:
    """Larger images: transposed convolutions, resizing, pixel shuffle."""
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(g.channels, g.between(1, 4), 3, g.pick(1, 2), 1, bias=g.pick(True, False)),
        nn.ConvTranspose2d(g.channels, g.channels, 2, 2, groups=g.channels),
        nn.Upsample(scale_factor=2), nn.Upsample(size=(7, 9)), nn.Upsample(scale_factor=2, mode="bilinear")]
    if g.channels % 4 == 0:
        layers.append(nn.PixelShuffle(2))
    layer = g.pick(*layers)
    follow(g, layer)
    return layer


class Lines(nn.Module):
    """Rows as sequences: convolutions and pools along one axis, stacked and taken apart again."""

    def __init__(self, g: Growing):
        super().__init__()
        length = g.size[0] * g.size[1]
        self.conv = nn.Conv1d(g.channels, g.channels, g.pick(1, 3), padding="same")
        self.pool = g.pick(nn.MaxPool1d(3, 1, 1), nn.AvgPool1d(3, 1, 1), nn.Identity())
        self.axis, self.size, self.length = g.pick(1, 2), g.size, length

    def forward(self, x):
        y = self.pool(self.conv(x.flatten(2)))
        first, second = torch.stack([y, x.flatten(2)], self.axis).unbind(self.axis)
        return (first + second).unflatten(2, self.size)


class Deep(nn.Module):
    """The image as the slices of a volume."""

    def __init__(self, g: Growing):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, (2, 3, 3), padding=(0, 1, 1), bias=g.pick(True, False))
        self.pool = g.pick(nn.Identity(), nn.MaxPool3d(2, 1, 1), nn.AvgPool3d((1, min(3, g.size[0]), 2), 1, (0, 1, 1)),
                           nn.AdaptiveAvgPool3d((g.channels, 3, 4)))
        follow(g, self)

    def forward(self, x):
        x = F.pad(x, (0, 0, 0, 0, 0, 1)).unsqueeze(1)
        return self.pool(self.conv(x)).squeeze(1)

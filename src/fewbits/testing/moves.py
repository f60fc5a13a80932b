"""Parts of random networks: joined, split, padded, sliced and pooled."""

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.testing.convolutions import conv_layer
from fewbits.testing.growing import Growing, follow


class Concat(nn.Module):
    def __init__(self, g: Growing):
        super().__init__()
        self.branch = conv_layer(g, keep=True)
        g.channels *= 2

    def forward(self, x):
        return torch.cat([self.branch(x), x], 1)


class Shuffle(nn.Module):
    """Split along the channels, swapped and joined; then interleaved."""

    def __init__(self, g: Growing):
        super().__init__()
        self.kind = g.pick("chunk", "split")

    def forward(self, x):
        parts = x.chunk(2, 1) if self.kind == "chunk" else torch.split(x, [1, x.shape[1] - 1], 1)
        x = torch.cat(tuple(reversed(parts)), 1)
        n, c, h, w = x.shape
        groups = 2 if c % 2 == 0 else 1
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Rearrange(nn.Module):
    """Uneven padding, or every second pixel."""

    def __init__(self, g: Growing):
        super().__init__()
        self.kind = g.pick("pad", "slice") if min(g.size) > 3 else "pad"
        follow(g, self)

    def forward(self, x):
        return F.pad(x, (1, 0, 0, 2)) if self.kind == "pad" else F.relu(x)[:, :, ::2, 1:]


class Mix(nn.Module):
    """The same pixels and channels in another order, some of them more than once."""

    def __init__(self, g: Growing):
        super().__init__()
        kinds = ["roll", "flip", "shuffle", "turn", "expand", "first", "as it is"]
        self.kind = g.pick(*kinds, *(["reflect", "replicate", "circular"] if min(g.size) > 2 else []))
        self.groups = 2 if g.channels % 2 == 0 else 1
        follow(g, self)

    def forward(self, x):
        match self.kind:
            case "roll":
                return x.roll((1, -2), (2, 3))
            case "flip":
                return x.flip((1, 3))
            case "shuffle":
                return F.channel_shuffle(x, self.groups)
            case "turn":
                return x.transpose(2, 3)
            case "expand":
                return x[:, :1].expand(-1, 3, -1, -1)
            case "first":
                return x[:, 0].unsqueeze(1)
            case "as it is":
                return x.clone().float().contiguous().reshape(x.shape)
            case _:
                return F.pad(x, (1, 2, 0, 1), mode=self.kind)


def adaptive_pool(g: Growing) -> nn.Module:
    made = g.pick(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)((g.between(2, 6), g.between(2, 6)))
    follow(g, made)
    return made


def pool(g: Growing) -> nn.Module | None:
    if min(g.size) < 3:
        return None
    pools = [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d((2, 3), 1),
             nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False),
             nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d((2, 3), 2, divisor_override=g.between(3, 9))]
    pool = g.pick(*pools)
    follow(g, pool)
    return pool

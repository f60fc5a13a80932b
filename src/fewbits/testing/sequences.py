"""Parts of random networks: pixels as a sequence, attention, learned tokens; whole sentences under masks."""

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.testing.convolutions import activation
from fewbits.testing.growing import Growing


class Attention(nn.Module):
    """Pixels attend to each other, with or without a causal mask."""

    def __init__(self, g: Growing):
        super().__init__()
        self.query, self.value = nn.Linear(g.channels, g.channels), nn.Linear(g.channels, g.channels)
        self.norm, self.kind = nn.LayerNorm(g.channels), g.pick("plain", "masked", "sdpa", "causal")
        self.register_buffer("mask", torch.ones(g.size[0] * g.size[1], g.size[0] * g.size[1]).tril())

    def forward(self, x):
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        q, v = self.query(tokens), self.value(tokens)
        if self.kind in ("sdpa", "causal"):
            y = F.scaled_dot_product_attention(q, tokens, v, is_causal=self.kind == "causal")
        else:
            scores = q @ tokens.transpose(-2, -1)
            if self.kind == "masked":
                scores = scores.masked_fill(self.mask == 0, -torch.inf)
            y = scores.softmax(-1) @ v
        return y.transpose(1, 2).reshape(x.shape)


class Words(nn.Module):
    """The rows that numbers name, as an image of one channel."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.table = nn.Embedding(rows, width)

    def forward(self, numbers):
        return self.table(numbers).unsqueeze(1)


class Tokens(nn.Module):
    """Pixels as a sequence: linear layers over three axes, a mean over the sequence, the first of it."""

    def __init__(self, g: Growing):
        super().__init__()
        width = g.between(2, 7)
        self.first, self.act = nn.Linear(g.channels, width), activation(g)
        self.second, self.kind = nn.Linear(width, 3), g.pick("mean", "first", "all")

    def forward(self, x):
        x = self.act(self.first(x.flatten(2).transpose(1, 2)))
        match self.kind:
            case "mean":
                return self.second(x.mean(1))
            case "first":
                return self.second(x[:, 0])
            case _:
                return self.second(x)


class ClassToken(nn.Module):
    """A learned token before the pixels, positions added, softmax over classes."""

    def __init__(self, g: Growing):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, g.channels))
        self.place = nn.Parameter(torch.randn(1, g.size[0] * g.size[1] + 1, g.channels) * 0.1)
        self.head = nn.Linear(g.channels, 4)

    def forward(self, x):
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.place
        return self.head(tokens[:, 0]).softmax(-1)


class Sentences(nn.Module):
    """Token numbers with positions, normalised rows, perhaps a recurrence, attention under a mask of what is there, and
    a choice by it."""

    def __init__(self, g: Growing, rows: int, length: int, width: int):
        super().__init__()
        self.rows, self.places = nn.Embedding(rows, width), nn.Embedding(length + 1, width)
        self.norm = g.pick(nn.RMSNorm(width), nn.RMSNorm(width), nn.LayerNorm(width))
        self.value, self.head = nn.Linear(width, width), nn.Linear(width, 3)
        self.recurrent = g.pick(None, None, None, nn.GRU(width, width, batch_first=True),
                                nn.LSTM(width, width, batch_first=True))
        self.at, self.there, self.ends = (g.pick("counted", "in order", "fixed"), g.pick("choice", "filled", "product"),
                                          g.pick("mean", "first", "all"))
        self.causal, self.constant = g.pick(True, False), float(g.rng.normal())
        self.register_buffer("order", torch.from_numpy(g.rng.permutation(length)))
        self.register_buffer("lower", torch.ones(length, length).tril().bool())

    def forward(self, ids, keep):
        x = self.rows(ids) + self.places(self._places(ids, keep))
        x = self.norm(x).index_select(1, self.order)
        there = keep.bool().index_select(1, self.order)
        if self.recurrent is not None:
            x = self.recurrent(x)[0]
        seen = there[:, None, :] & self.lower if self.causal else there[:, None, :]
        y = (x @ x.transpose(-1, -2)).masked_fill(~seen, -1e9).softmax(-1) @ self.value(x)
        match self.there:
            case "choice":
                y = torch.where(there[..., None], y, self.constant)
            case "filled":
                y = y.masked_fill(~there[..., None], 0.0)
            case _:
                y = y * there[..., None].float()
        match self.ends:
            case "mean":
                return self.head(y.mean(1))
            case "first":
                return self.head(y[:, 0])
            case _:
                return self.head(y)

    def _places(self, ids, keep):
        match self.at:
            case "counted":
                return keep.cumsum(1)
            case "in order":
                return torch.arange(ids.shape[1]).expand(ids.shape[0], -1)
            case _:
                return ids * 0 + self.order

"""A small transformer encoder, for sequences of vectors or of tokens."""

import torch
from torch import Tensor, nn

from fewbits.tasks.attention import attend, heads


class EncoderBlock(nn.Module):
    """Pre-norm attention and a hidden layer of four times the width, each added to its input.

    forward: [N, T, width] -> the same shape. Source: Vaswani et al. 2017, arXiv:1706.03762, §3.1; norm first as
    Xiong et al. 2020, arXiv:2002.04745; GELU as Devlin et al. 2018, arXiv:1810.04805.
    """

    def __init__(self, width: int, head_count: int) -> None:
        super().__init__()
        self.head_count = head_count
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        query, key, value = (heads(layer(y), self.head_count) for layer in (self.query, self.key, self.value))
        x = x + self.project(attend(query, key, value))
        return x + self.shrink(self.gelu(self.expand(self.norm2(x))))


class TransformerEncoder(nn.Module):
    """Embeds a sequence, adds a learned position, and classifies the mean of what the blocks make of it.

    forward: float32 [N, length, features], or int64 [N, length] where `tokens`, below `features` -> logits float32
    [N, classes].
    """

    def __init__(self, length: int, features: int, classes: int, *, tokens: bool = False, width: int = 32,
                 head_count: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(features, width) if tokens else nn.Linear(features, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, head_count) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.embed(x) + self.position)
        return self.head(self.norm(x).mean(1))


class DigitsTransformer(nn.Module):
    """A `TransformerEncoder` over the eight rows of a digit: float32 [N, 1, 8, 8] -> logits float32 [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(length=8, features=8, classes=10)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x.flatten(1, 2))


def digits_transformer() -> DigitsTransformer:
    """An untrained `DigitsTransformer` of 26 346 parameters."""
    return DigitsTransformer()

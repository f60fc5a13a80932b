"""A character-level GPT."""

import torch
from torch import Tensor, nn

from fewbits.tasks.attention import attend, heads


class GptBlock(nn.Module):
    """Pre-norm causal attention and a GELU layer of four times the width, each added to its input.

    forward: x [N, T, width], hidden bool [T, T] -> [N, T, width]. Source: Radford et al. 2019 (GPT-2), §2.3.
    """

    def __init__(self, width: int, head_count: int) -> None:
        super().__init__()
        self.head_count = head_count
        self.ln1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        query, key, value = (heads(part, self.head_count) for part in self.qkv(self.ln1(x)).chunk(3, 2))
        x = x + self.proj(attend(query, key, value, hidden))
        return x + self.fc2(self.gelu(self.fc1(self.ln2(x))))


class CharGpt(nn.Module):
    """Tokens int64 [N, T], T up to `context` -> logits float32 [N, T, vocabulary] of each next one.

    The head is not tied to the embedding and has no bias. Source: Karpathy, nanoGPT's character-level example.
    """

    def __init__(self, vocabulary: int = 65, context: int = 128, width: int = 128, head_count: int = 4,
                 blocks: int = 4) -> None:
        super().__init__()
        self.tok = nn.Embedding(vocabulary, width)
        self.pos = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(GptBlock(width, head_count) for _ in range(blocks))
        self.lnf = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.hidden: Tensor
        self.register_buffer("hidden", torch.ones(context, context, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.tok(tokens) + self.pos.weight[:length]
        hidden = self.hidden[:length, :length]
        for block in self.blocks:
            x = block(x, hidden)
        return self.head(self.lnf(x))


def char_gpt() -> CharGpt:
    """An untrained character GPT, 4 blocks of width 128: 826 368 parameters."""
    return CharGpt()

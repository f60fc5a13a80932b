"""A Llama-style language model, of the size of stories260K."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewbits.tasks.attention import attend, heads


class RmsNorm(nn.Module):
    """x / √(mean(x²) + eps) · weight, over the last axis. Source: Zhang and Sennrich 2019, arXiv:1910.07467."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


def angles(length: int, width: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """(cos, sin) of position·theta^(-2i/width), float32 [length, width/2]. Source: Su et al. 2021, arXiv:2104.09864."""
    rate = theta ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angle = torch.outer(torch.arange(length, dtype=torch.float32), rate)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each neighbouring pair by its angle: x [N, heads, T, D], cos and sin [T, D/2] -> shape of x."""
    pairs = x.unflatten(3, (-1, 2))
    even, odd = pairs[..., 0], pairs[..., 1]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), 4).flatten(3)


def repeat_heads(x: Tensor, times: int) -> Tensor:
    """Each head `times` times in a row: [N, heads, T, D] -> [N, heads·times, T, D]."""
    batch, count, length, width = x.shape
    return x.unsqueeze(2).expand(batch, count, times, length, width).reshape(batch, count * times, length, width)


class Attention(nn.Module):
    """Causal attention in which several query heads share a key and value head.

    forward: x [N, T, width], cos and sin [T, D/2], hidden bool [T, T] -> [N, T, width].
    Source: Ainslie et al. 2023, arXiv:2305.13245.
    """

    def __init__(self, width: int, head_count: int, shared_count: int) -> None:
        super().__init__()
        self.head_count, self.shared_count = head_count, shared_count
        shared_width = width // head_count * shared_count
        self.wq = nn.Linear(width, width, bias=False)
        self.wk = nn.Linear(width, shared_width, bias=False)
        self.wv = nn.Linear(width, shared_width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, hidden: Tensor) -> Tensor:
        query = rotate(heads(self.wq(x), self.head_count), cos, sin)
        key = rotate(heads(self.wk(x), self.shared_count), cos, sin)
        value = heads(self.wv(x), self.shared_count)
        times = self.head_count // self.shared_count
        return self.wo(attend(query, repeat_heads(key, times), repeat_heads(value, times), hidden))


class FeedForward(nn.Module):
    """w2(SiLU(w1 x) · w3 x): [N, T, width] -> the same shape. Source: Shazeer 2020, arXiv:2002.05202 (SwiGLU)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)
        self.w3 = nn.Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class LlamaBlock(nn.Module):
    """Pre-norm attention and feed-forward, each added to its input. Shapes as `Attention`."""

    def __init__(self, width: int, inner: int, head_count: int, shared_count: int) -> None:
        super().__init__()
        self.attention_norm = RmsNorm(width)
        self.attention = Attention(width, head_count, shared_count)
        self.ffn_norm = RmsNorm(width)
        self.feed_forward = FeedForward(width, inner)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, hidden: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, hidden)
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    """Tokens int64 [N, T], T up to `context` -> logits float32 [N, T, vocabulary] of each next one.

    The head is tied to the embedding. Names as in Karpathy's llama2.c. Source: Touvron et al. 2023,
    arXiv:2302.13971, §2.2.
    """

    def __init__(self, vocabulary: int = 512, context: int = 512, width: int = 64, inner: int = 172, blocks: int = 5,
                 head_count: int = 8, shared_count: int = 4) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(LlamaBlock(width, inner, head_count, shared_count) for _ in range(blocks))
        self.norm = RmsNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)
        self.output.weight = self.tok_embeddings.weight
        cos, sin = angles(context, width // head_count)
        self.cos: Tensor
        self.sin: Tensor
        self.hidden: Tensor
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.register_buffer("hidden", torch.ones(context, context, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.tok_embeddings(tokens)
        cos, sin, hidden = self.cos[:length], self.sin[:length], self.hidden[:length, :length]
        for layer in self.layers:
            x = layer(x, cos, sin, hidden)
        return self.output(self.norm(x))


def stories260k() -> Llama:
    """An untrained Llama of 260 032 parameters, the shape of Karpathy's stories260K."""
    return Llama()

"""Transformers and what came beside them, for images and for tokens."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from zoo_layers import Apply, Made, Sum, chain, conv, images, residual, tokens

from fewbits.tasks.char_gpt import CharGpt
from fewbits.tasks.llama import Llama


class Attention(nn.Module):
    """Over the last but one axis; fused: by torch's own function."""

    def __init__(self, width: int, heads: int = 2, fused: bool = False, bias: tuple[int, ...] | None = None):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(bias)) if bias else None

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
            y = (scores if self.bias is None else scores + self.bias).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(n, t, c))


def _mlp(width: int, act: type[nn.Module] = nn.GELU) -> nn.Module:
    return chain(nn.Linear(width, 2 * width), act(), nn.Linear(2 * width, width))


def _block(width: int, attention: nn.Module) -> nn.Module:
    return chain(residual(nn.LayerNorm(width), attention), residual(nn.LayerNorm(width), _mlp(width)))


def _patches(width: int) -> nn.Module:
    return chain(nn.Conv2d(3, width, 4, 4), Apply(lambda x: x.flatten(2).transpose(1, 2)))


class _Vit(nn.Module):
    """Dosovitskiy et al. 2020, arXiv:2010.11929; two extra tokens as DeiT, arXiv:2012.12877."""

    def __init__(self, extra: int, fused: bool = False, width: int = 8):
        super().__init__()
        self.patches, self.block, self.norm = (
            _patches(width),
            _block(width, Attention(width, fused=fused)),
            nn.LayerNorm(width),
        )
        self.extra = nn.Parameter(torch.randn(1, extra, width))
        self.position = nn.Parameter(torch.randn(1, 16 + extra, width))
        self.heads = nn.ModuleList(nn.Linear(width, 5) for _ in range(extra))

    def forward(self, x):
        x = self.patches(x)
        x = torch.cat([self.extra.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = self.norm(self.block(x))
        logits = [head(x[:, i]) for i, head in enumerate(self.heads)]
        return logits[0] if len(logits) == 1 else (logits[0] + logits[1]) / 2


def vit() -> Made:
    return _Vit(1), images()


def vit_fused() -> Made:
    return _Vit(1, fused=True), images()


def deit() -> Made:
    return _Vit(2), images()


class _Windows(nn.Module):
    """Attention in 2×2 windows with a position bias, rolled by one: Liu et al. 2021, arXiv:2103.14030."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = Attention(width, bias=(2, 4, 4))

    def forward(self, x):
        n, h, w, c = x.shape
        x = torch.roll(x, (-1, -1), (1, 2))
        x = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        x = self.attention(x).view(-1, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, c)
        return torch.roll(x, (1, 1), (1, 2))


class _Merge(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x):
        return self.reduce(torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1))


def swin() -> Made:
    return chain(
        nn.Conv2d(3, 8, 4, 4),
        Apply(lambda x: x.permute(0, 2, 3, 1)),
        _block(8, _Windows(8)),
        _Merge(8),
        nn.LayerNorm(16),
        Apply(lambda x: x.mean((1, 2))),
        nn.Linear(16, 5),
    ), images()


class _Reduced(nn.Module):
    """Keys and values at half the resolution: arXiv:2102.12122."""

    def __init__(self, width: int):
        super().__init__()
        self.q, self.kv, self.reduce = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Conv2d(width, width, 2, 2),
        )

    def forward(self, x):
        n, _, c = x.shape
        small = self.reduce(x.transpose(1, 2).reshape(n, c, 4, 4)).flatten(2).transpose(1, 2)
        k, v = self.kv(small).chunk(2, -1)
        return torch.softmax(torch.bmm(self.q(x), k.transpose(1, 2)) / math.sqrt(c), -1).bmm(v)


def pyramid_vit() -> Made:
    return chain(_patches(8), _block(8, _Reduced(8)), Apply(lambda x: x.mean(1)), nn.Linear(8, 5)), images()


class _Mix(nn.Module):
    """A layer over the tokens instead of the channels."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


def mlp_mixer() -> Made:
    """Tolstikhin et al. 2021, arXiv:2105.01601."""
    block = chain(residual(nn.LayerNorm(8), _Mix(_mlp(16))), residual(nn.LayerNorm(8), _mlp(8)))
    return chain(_patches(8), block, nn.LayerNorm(8), Apply(lambda x: x.mean(1)), nn.Linear(8, 5)), images()


class _Affine(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width))

    def forward(self, x):
        return torch.addcmul(self.shift, self.scale, x)


def res_mlp() -> Made:
    """Touvron et al. 2021, arXiv:2105.03404."""
    block = chain(residual(_Affine(8), _Mix(nn.Linear(16, 16))), residual(_Affine(8), _mlp(8)))
    return chain(_patches(8), block, Apply(lambda x: x.mean(1)), nn.Linear(8, 5)), images()


class _Gating(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.expand, self.norm, self.mix, self.shrink = (
            nn.Linear(width, 2 * width),
            nn.LayerNorm(width),
            nn.Linear(16, 16),
            nn.Linear(width, width),
        )

    def forward(self, x):
        one, two = F.gelu(self.expand(x)).chunk(2, -1)
        return self.shrink(one * self.mix(self.norm(two).transpose(1, 2)).transpose(1, 2))


def g_mlp() -> Made:
    """Liu et al. 2021, arXiv:2105.08050."""
    return chain(
        _patches(8), residual(nn.LayerNorm(8), _Gating(8)), Apply(lambda x: x.mean(1)), nn.Linear(8, 5)
    ), images()


def poolformer() -> Made:
    """Pooling minus identity in the place of attention: arXiv:2111.11418."""
    mix = chain(nn.GroupNorm(1, 8), Apply(lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x))
    mlp = chain(nn.GroupNorm(1, 8), nn.Conv2d(8, 16, 1), nn.GELU(), nn.Conv2d(16, 8, 1))
    return chain(
        nn.Conv2d(3, 8, 4, 4), residual(mix), residual(mlp), Apply(lambda x: x.mean((2, 3))), nn.Linear(8, 5)
    ), images()


class _Linear(nn.Module):
    """ELU + 1 in the place of softmax: Katharopoulos et al. 2020, arXiv:2006.16236."""

    def __init__(self, width: int):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        q, k = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1
        total = q @ k.sum(1, keepdim=True).transpose(1, 2)
        return q @ (k.transpose(1, 2) @ self.v(x)) / total


def linear_attention() -> Made:
    return chain(_patches(8), _block(8, _Linear(8)), Apply(lambda x: x.mean(1)), nn.Linear(8, 5)), images()


class _MobileVit(nn.Module):
    """Convolution, then attention among the same places of all patches: arXiv:2110.02178."""

    def __init__(self, width: int):
        super().__init__()
        self.local, self.block, self.join = (
            conv(width, width, act=nn.SiLU),
            _block(width, Attention(width)),
            conv(2 * width, width, act=nn.SiLU),
        )

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.local(x).reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 2, 4, 1).reshape(n * 4, h * w // 4, c)
        y = self.block(y).reshape(n, 2, 2, h // 2, w // 2, c).permute(0, 5, 3, 1, 4, 2).reshape(n, c, h, w)
        return self.join(torch.cat([x, y], 1))


def mobile_vit() -> Made:
    return chain(
        conv(3, 8, 3, 2, act=nn.SiLU), _MobileVit(8), Apply(lambda x: x.mean((2, 3))), nn.Linear(8, 5)
    ), images(8)


class _Bert(nn.Module):
    """Embeddings added and normed, blocks normed behind, a tanh pooler: Devlin et al. 2018, arXiv:1810.04805."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.word, self.place = nn.Embedding(20, width), nn.Embedding(9, width)
        self.norm, self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-12) for _ in range(3))
        self.attention, self.mlp = Attention(width), _mlp(width)
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, ids):
        x = self.norm(self.word(ids) + self.place(torch.arange(ids.shape[1], device=ids.device)))
        x = self.norm1(x + self.attention(x))
        x = self.norm2(x + self.mlp(x))
        return {"sequence": x, "logits": self.head(torch.tanh(self.pooler(x[:, 0])))}


def bert() -> Made:
    return _Bert(), tokens()


def char_gpt() -> Made:
    return CharGpt(20, 9, 8, 2, 1), tokens()


def llama() -> Made:
    return Llama(20, 9, 16, 20, 1, 4, 2), tokens()


class _T5(nn.Module):
    """No scale, a learned bias by distance, norm without mean, ReLU: Raffel et al. 2019, arXiv:1910.10683."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.embed, self.attention = nn.Embedding(20, width), Attention(width, bias=(2, 9, 9))
        self.scale, self.mlp = nn.Parameter(torch.ones(width)), _mlp(width, nn.ReLU)

    def norm(self, x):
        return self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.attention(self.norm(x))
        return (x + self.mlp(self.norm(x))) @ self.embed.weight.t()


def t5() -> Made:
    return _T5(), tokens()


class _Torch(nn.Module):
    """torch's own layer, as many people's first transformer."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.layer(x).mean(1))


def torch_encoder_layer() -> Made:
    return _Torch(), torch.randn(2, 6, 8)


class _Cross(nn.Module):
    """nn.MultiheadAttention between two sequences: two inputs."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

    def forward(self, x, y):
        return self.head(self.attention(x, y, y, need_weights=False)[0])


def cross_attention() -> Made:
    return _Cross(), (torch.randn(2, 4, 8), torch.randn(2, 6, 8))


class _Channels(nn.Module):
    """Attention between channels (El-Nouby et al. 2021, arXiv:2106.09681)."""

    def __init__(self, width: int, heads: int = 2):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), 2.0))

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 4, 1).unbind(0)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.proj((scores.softmax(-1) @ v).permute(0, 3, 1, 2).reshape(n, t, c))


def xcit() -> Made:
    return chain(_patches(8), _block(8, _Channels(8)), nn.LayerNorm(8)), images(16)


class _Cosine(Attention):
    """Attention by cosines, with positions from a small network (Liu et al. 2021, arXiv:2111.09883)."""

    def __init__(self, width: int, places: int):
        super().__init__(width)
        self.scale = nn.Parameter(torch.full((self.heads, 1, 1), 10.0).log())
        self.positions = chain(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, self.heads, bias=False))
        self.register_buffer("places", torch.randn(places, places, 2))

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scores = scores * self.scale.clamp(max=math.log(100.0)).exp()
        scores = scores + 16 * self.positions(self.places).permute(2, 0, 1).sigmoid()
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))


def swin_v2() -> Made:
    block = chain(Sum(nn.Identity(), chain(_Cosine(8, 16), nn.LayerNorm(8))),
                  Sum(nn.Identity(), chain(_mlp(8), nn.LayerNorm(8))))
    return chain(_patches(8), block), images(16)


class _Talking(nn.Module):
    """Heads that mix before and after softmax, and a branch scale (Touvron et al. 2021, arXiv:2103.17239)."""

    def __init__(self, width: int, heads: int = 2):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.before, self.after = nn.Linear(heads, heads), nn.Linear(heads, heads)
        self.gamma = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5
        scores = self.before(scores.permute(0, 2, 3, 1)).softmax(-2)
        shares = self.after(scores).permute(0, 3, 1, 2)
        return self.gamma * self.proj((shares @ v).transpose(1, 2).reshape(n, t, c))


def cait() -> Made:
    return chain(_patches(8), _block(8, _Talking(8))), images(16)


class _Response(nn.Module):
    """Global response normalisation (Woo et al. 2023, arXiv:2301.00808); channels last."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))

    def forward(self, x):
        size = x.norm(p=2, dim=(1, 2), keepdim=True)
        return x + self.gamma * (x * (size / (size.mean(-1, keepdim=True) + 1e-6))) + self.beta


def convnext_v2() -> Made:
    block = residual(nn.Conv2d(8, 8, 7, padding=3, groups=8), Apply(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(8),
                     nn.Linear(8, 16), nn.GELU(), _Response(16), nn.Linear(16, 8),
                     Apply(lambda x: x.permute(0, 3, 1, 2)))
    return chain(nn.Conv2d(3, 8, 4, 4), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)), images(32)


NETWORKS = (
    vit,
    vit_fused,
    deit,
    swin,
    pyramid_vit,
    mlp_mixer,
    res_mlp,
    g_mlp,
    poolformer,
    linear_attention,
    mobile_vit,
    bert,
    char_gpt,
    llama,
    t5,
    torch_encoder_layer,
    cross_attention,
    xcit,
    swin_v2,
    cait,
    convnext_v2,
)

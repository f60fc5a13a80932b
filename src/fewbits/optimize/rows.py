"""The sums of a layer as rows: what one output number is made of, at places drawn at random.

A convolution sees thousands of places an image, neighbours much alike. Rows drawn from many images tell as
much about its weights for a fraction of the arithmetic, and turn every layer into small matrix products.
"""

import torch
from torch.nn import functional as F

from fewbits.optimize.layer import Layer


def draw_places(layer: Layer, x: torch.Tensor, kernel: tuple[int, ...], count: int,
                generator: torch.Generator) -> torch.Tensor:
    """Places in the output of one batch, drawn with replacement: int64 [count, 3] of (image, row, column) for
    a convolution, [count, 1] of position for a linear layer; all places, each once, where there are no more."""
    sizes = [x.shape[0], *_output_size(layer, x, kernel)] if kernel else [x.numel() // x.shape[-1]]
    total = int(torch.tensor(sizes).prod())
    flat = torch.arange(total) if total <= count else torch.randint(total, (count,), generator=generator)
    return torch.stack(torch.unravel_index(flat, sizes), 1)


def rows(layer: Layer, x: torch.Tensor, kernel: tuple[int, ...], places: torch.Tensor) -> torch.Tensor:
    """float32 [n, groups, K]: the inputs of the sums at `places`, in the order of `Layer.matrix`.

    x: the layer's input, [N, C, H, W] or [..., I]; kernel: (kh, kw), or () for a linear layer.
    """
    if not kernel:
        return x.reshape(-1, x.shape[-1])[places[:, 0], None]
    stride, dilation = _pair(layer.node["stride"]), _pair(layer.node["dilation"])
    padded = F.pad(x, _margins(layer, kernel)).permute(0, 2, 3, 1)
    down = places[:, 1, None] * stride[0] + torch.arange(kernel[0]) * dilation[0]  # [n, kh]
    right = places[:, 2, None] * stride[1] + torch.arange(kernel[1]) * dilation[1]  # [n, kw]
    seen = padded[places[:, 0, None, None], down[:, :, None], right[:, None, :]]  # [n, kh, kw, C]
    return seen.permute(0, 3, 1, 2).reshape(len(places), layer.groups, -1)


def products(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[n, O] from matrix [groups, O/groups, K] and rows [n, groups, K]."""
    if matrix.shape[0] == 1:
        return x[:, 0] @ matrix[0].T
    return torch.matmul(matrix, x.permute(1, 2, 0)).reshape(-1, len(x)).T


def _output_size(layer: Layer, x: torch.Tensor, kernel: tuple[int, ...]) -> tuple[int, int]:
    left, right, top, bottom = _margins(layer, kernel)
    stride, dilation = _pair(layer.node["stride"]), _pair(layer.node["dilation"])
    height, width = x.shape[2] + top + bottom, x.shape[3] + left + right
    return tuple((size - d * (k - 1) - 1) // s + 1  # type: ignore[return-value]
                 for size, d, k, s in zip((height, width), dilation, kernel, stride, strict=True))


def _margins(layer: Layer, kernel: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(left, right, top, bottom), as F.pad takes them."""
    padding, dilation = layer.node["padding"], _pair(layer.node["dilation"])
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":  # the odd one behind
        down, right = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return right // 2, right - right // 2, down // 2, down - down // 2
    down, right = _pair(padding)
    return right, right, down, down


def _pair(value: int | list[int]) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return values[0], values[-1]

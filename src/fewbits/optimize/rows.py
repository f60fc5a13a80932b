"""Layer inputs as rows of a matrix (im2col), at output positions drawn at random.

A convolution sees thousands of places an image, neighbours much alike. Rows drawn from many images tell as
much about its weights for a fraction of the arithmetic, and turn every layer into small matrix products.
"""

import torch
from torch.nn import functional as F

from fewbits.optimize.layer import Layer
from fewbits.program.node import Margins
from fewbits.program.windows import margins_of, sizes_of


def draw_places(layer: Layer, x: torch.Tensor, kernel: tuple[int, ...], count: int,
                generator: torch.Generator) -> torch.Tensor:
    """Places in the output of one batch, drawn with replacement: int64 [count, 1 + axes] of (image, place)
    for a convolution, [count, 1] of position for a linear layer; all places, each once, where there are no more."""
    sizes = [x.shape[0], *_output_size(layer, x, kernel)] if kernel else [x.numel() // x.shape[-1]]
    total = int(torch.tensor(sizes).prod())
    flat = torch.arange(total) if total <= count else torch.randint(total, (count,), generator=generator)
    return torch.stack(torch.unravel_index(flat, sizes), 1)


def rows(layer: Layer, x: torch.Tensor, kernel: tuple[int, ...], places: torch.Tensor) -> torch.Tensor:
    """float32 [n, groups, K]: the inputs of the sums at `places`, in the order of `Layer.matrix`.

    x: the layer's input, [N, C, ...] or [..., I]; kernel: its sizes, or () for a linear layer.
    """
    if not kernel:
        return x.reshape(-1, x.shape[-1])[places[:, 0], None]
    rank = len(kernel)
    stride, dilation = (sizes_of(layer.node[name], rank) for name in ("stride", "dilation"))
    padded = F.pad(x, [size for pair in reversed(_margins(layer, kernel)) for size in pair]).movedim(1, -1)
    image = places[:, 0].reshape(-1, *[1] * rank)
    along = [(places[:, 1 + axis, None] * stride[axis] + torch.arange(kernel[axis]) * dilation[axis])
             .reshape(-1, *[kernel[axis] if other == axis else 1 for other in range(rank)]) for axis in range(rank)]
    seen = padded[(image, *along)]  # [n, *kernel, C]
    return seen.movedim(-1, 1).reshape(len(places), layer.groups, -1)


def products(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[n, O] from matrix [groups, O/groups, K] and rows [n, groups, K]."""
    if matrix.shape[0] == 1:
        return x[:, 0] @ matrix[0].T
    return torch.matmul(matrix, x.permute(1, 2, 0)).reshape(-1, len(x)).T


def _output_size(layer: Layer, x: torch.Tensor, kernel: tuple[int, ...]) -> tuple[int, ...]:
    stride, dilation = (sizes_of(layer.node[name], len(kernel)) for name in ("stride", "dilation"))
    return tuple((size + sum(margin) - d * (k - 1) - 1) // s + 1 for size, margin, d, k, s in
                 zip(x.shape[2:], _margins(layer, kernel), dilation, kernel, stride, strict=True))


def _margins(layer: Layer, kernel: tuple[int, ...]) -> Margins:
    """(before, after) per axis behind the channels."""
    return margins_of(layer.node["padding"], kernel, sizes_of(layer.node["dilation"], len(kernel)))

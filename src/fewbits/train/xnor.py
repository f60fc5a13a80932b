"""XNOR-Net's scaling factors of activations, K.

Source: Rastegari et al. 2016, arXiv:1603.05279, §3.2, eq. 11. K depends on the position in the image, so it is a scale
of no encoding: it exists in simulations only, and a program leaves it out, as the authors' released code does.
"""

import torch
import torch.nn.functional as F


def scaling_map(x: torch.Tensor, kernel: tuple[int, int], stride: int = 1, padding: int = 0) -> torch.Tensor:
    """K: the mean magnitude under each position of the kernel, over channels too.

    x: [N, C, H, W], before its sign is taken. Returns [N, 1, H', W'].
    """
    magnitudes = x.abs().mean(1, keepdim=True)
    box = torch.full((1, 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=x.dtype, device=x.device)
    return F.conv2d(magnitudes, box, stride=stride, padding=padding)

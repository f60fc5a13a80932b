"""Codebook weights: k-means to start with, then training of the centroids.

Sources: Han, Mao and Dally 2016, arXiv:1510.00149, §3.3, eq. 3 (summed gradients); the On-Device AI lab's k-means
quantization-aware training (mean refresh).
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from fewbits.errors import EncodingError
from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.quant.fake_quantize import round_pass
from fewbits.quant.plan import Site
from fewbits.ranges.kmeans import nearest
from fewbits.ranges.kmeans_starts import Method, clustered
from fewbits.train.from_weights import FromWeights

_LARGEST = 127
_UNKNOWN = -1
CODEBOOK_STARTS: tuple[Method, ...] = ("linear", "density", "random")
"""Starts that recipes may name (`codebook-linear(16)`) where they do not want the optimum: those the paper compares."""


class _Lookup(torch.autograd.Function):
    """table[index]; the gradient of an entry is the sum over the weights that share it."""

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.entries = len(table)
        return table[index]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (index,) = ctx.saved_tensors
        sums = torch.bincount(index.reshape(-1), weights=gradients[0].reshape(-1).double(), minlength=ctx.entries)
        return sums.to(gradients[0].dtype), None


def look_up(centroids: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """[0, *centroids][index], any shape of index; each centroid gets the sum of its members' gradients."""
    found: Any = _Lookup.apply(torch.cat([centroids.new_zeros(1), centroids.reshape(-1)]), index)
    return found


class Codebook(FromWeights):
    """k centroids per tensor or output channel, found by 1-d k-means of the weights at the first training step: the
    optimum, or what Lloyd's iteration comes to from another start. seed: of a start that draws.

    Then every weight keeps its centroid, and the centroids learn. Zeros (pruned weights) stay zeros and are no cluster.
    In the program the centroid of the largest magnitude is 127 steps and the others are rounded to whole steps of it,
    in the simulation too. Raises EncodingError for other blocks, and for k that is no whole number from 1 to 256.
    """

    index: torch.Tensor

    def __init__(self, site: Site, k: float, seed: float = 0, *, start: Method = "optimal"):
        super().__init__(site)
        if self.spec.block not in (TENSOR, CHANNEL):
            raise EncodingError(f"{site.name!r}: a codebook serves a tensor or an output channel, not blocks of "
                                f"{self.spec.block}: use `block: tensor` or `block: channel`")
        if k != int(k) or not 1 <= k <= 256:
            raise EncodingError(f"{site.name!r}: a codebook has 1 to 256 centroids, not {k:g}")
        if seed != int(seed) or seed < 0:
            raise EncodingError(f"{site.name!r}: the seed of a codebook's start is a whole number, 0 or more, not "
                                f"{seed:g}")
        self._from: Method = start
        self._seed = int(seed)
        self.centroids = nn.Parameter(torch.zeros(self.scale.numel(), int(k)))
        shape = [0 if size is None else size for size in site.shape]
        self.register_buffer("index", torch.full(shape, _UNKNOWN, dtype=torch.int32))

    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self._begin(weight)
        steps, scale = self._steps()
        return look_up(steps, self.index), scale.reshape(self.scale.shape)

    def simulated(self, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        steps, scale = self._steps()
        return look_up(steps * scale, self.index)

    def settle(self) -> None:
        """Sets the scale that the centroids have after the last step."""
        if self._is_clustered():
            with torch.no_grad():
                self.scale.copy_(self._steps()[1].reshape(self.scale.shape))

    def _steps(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(centroids in whole steps, [groups, k], with the gradient of the division alone; a step, [groups, 1])"""
        largest = self.centroids.detach().abs().amax(1, keepdim=True)
        scale = torch.where(largest > 0, largest / _LARGEST, torch.ones_like(largest))
        return round_pass(self.centroids / scale), scale

    def _is_clustered(self) -> bool:
        return not self.index.numel() or bool(self.index.reshape(-1)[0] != _UNKNOWN)

    def _begin(self, weight: torch.Tensor) -> None:
        if self._is_clustered():
            return
        groups, k = self.centroids.shape
        rows = weight.detach().cpu().double().numpy().reshape(groups, -1)
        index = np.zeros(rows.shape, np.int32)
        table = np.zeros((groups, k))
        for number, row in enumerate(rows):
            kept = row != 0
            if not kept.any():
                continue
            found = np.unique(clustered(row[kept], k, self._from, self._seed).centroids.astype(np.float32))
            table[number, :len(found)], table[number, len(found):] = found, found[-1]
            index[number, kept] = 1 + number * k + nearest(row[kept], found)
        self.centroids.copy_(torch.from_numpy(table))
        self.index.copy_(torch.from_numpy(index).reshape(self.index.shape))


class RefreshedCodebook(Codebook):
    """As Codebook, but the weights themselves are trained, each with its own gradient; after a step each centroid
    becomes the mean of its members, and they take its value."""

    def __init__(self, site: Site, k: float):
        super().__init__(site, k)
        self.centroids.requires_grad_(False)

    def simulated(self, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return FromWeights.simulated(self, weight, codes, scale)

    def after_step(self, parameter: torch.Tensor) -> None:
        if not self._is_clustered():
            return
        index, entries = self.index.reshape(-1), self.centroids.numel() + 1
        members = torch.bincount(index, minlength=entries)[1:]
        sums = torch.bincount(index, weights=parameter.detach().reshape(-1).double(), minlength=entries)[1:]
        means = torch.where(members > 0, sums / members.clamp(min=1), self.centroids.detach().reshape(-1).double())
        with torch.no_grad():
            self.centroids.copy_(means.reshape(self.centroids.shape))
            parameter.copy_(look_up(self.centroids, self.index))

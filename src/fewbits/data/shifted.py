"""Training images moved by some pixels or mirrored, anew each time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fewbits.data.split import Batches


def drawn_shift(most: int, generator: torch.Generator) -> tuple[int, int]:
    """Pixels down and to the right, each from -most to most, all alike likely."""
    up, left = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    return -up, -left


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """Images [B, C, H, W] moved; what moves in repeats the edge."""
    above, left, below, after = max(down, 0), max(right, 0), max(-down, 0), max(-right, 0)
    height, width = images.shape[2:]
    whole = F.pad(images, [left, after, above, below], mode="replicate")
    return whole[:, :, below:below + height, after:after + width]


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Images [B, C, H, W] moved, all alike, by up to `most` pixels down or up and right or left; what moves in repeats
    the edge. most = 0 gives the images themselves."""
    return moved(images, *drawn_shift(most, generator)) if most else images


@dataclass(frozen=True, eq=False)
class Shifted:
    """Batches whose images are moved, each batch by an amount of its own, other amounts in each pass."""

    batches: Batches
    most: int
    generator: torch.Generator

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.batches:
            yield shifted(x, self.most, self.generator), y


@dataclass(frozen=True, eq=False)
class Mirrored:
    """Batches whose images are mirrored left to right, each with a chance of one half, others in each pass."""

    batches: Batches | Shifted
    generator: torch.Generator

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.batches:
            turned = torch.rand(len(x), 1, 1, 1, generator=self.generator) < 0.5
            yield torch.where(turned, x.flip(3), x), y

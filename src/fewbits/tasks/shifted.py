"""Training images moved by a pixel or so, anew each time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fewbits.tasks.split import Batches


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Images [B, C, H, W] moved, all alike, by up to `most` pixels down or up and right or left; what moves in repeats
    the edge. most = 0 gives the images themselves."""
    if not most:
        return images
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    height, width = images.shape[2:]
    return F.pad(images, [most] * 4, mode="replicate")[:, :, down:down + height, right:right + width]


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

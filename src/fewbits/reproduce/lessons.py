"""What a compressed network learns from: moved images, their labels, and a float network's answers to them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewbits.data.shifted import drawn_shift, moved
from fewbits.data.split import Split
from fewbits.train.distillation import distilled
from fewbits.train.step import InPrecision

_TEMPERATURE, _SHARE = 4.0, 0.5


class Lessons:
    """Epochs of batches (x, targets), targets as `distillation` takes them.

    The teacher answers once for each image in each of the (2 · shift + 1)² places where it can lie, when the pair first
    comes up; later epochs cost it nothing.
    """

    def __init__(self, learning: Split, teacher: nn.Module, *, shift: int, batch_size: int, precision: torch.dtype):
        """learning: float32 images, as the networks take them, with labels. shift: pixels by which each batch is moved
        at most. precision: of the teacher's products."""
        assert learning.y is not None
        self._numbered = Split(learning.x, torch.arange(len(learning)))
        self._labels, self._teacher = learning.y, InPrecision(teacher, precision)
        self._shift, self._batch_size = shift, batch_size
        self._answers: dict[tuple[int, int], Tensor] = {}  # by shift: logits [N, C], NaN where not asked yet

    def epoch(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in an order and moved by amounts that `seed` decides."""
        generator = torch.Generator().manual_seed(seed)
        for x, numbers in self._numbered.batches(self._batch_size, generator=generator):
            place = drawn_shift(self._shift, generator)
            x = moved(x, *place)
            logits = self._answered(x, numbers, place)
            yield x, torch.cat([logits, F.one_hot(self._labels[numbers], logits.shape[1]).to(logits)], 1)

    def _answered(self, x: Tensor, numbers: Tensor, place: tuple[int, int]) -> Tensor:
        """The teacher's logits [B, C] for images that lie at `place`."""
        if place in self._answers:
            unknown = self._answers[place][numbers].isnan().any(1)
        else:
            unknown = torch.ones(len(numbers), dtype=torch.bool)
        if unknown.any():
            with torch.no_grad():
                logits = self._teacher(x[unknown])
            known = self._answers.setdefault(place, logits.new_full((len(self._numbered), logits.shape[1]), torch.nan))
            known[numbers[unknown]] = logits
        return self._answers[place][numbers]


def distillation(logits: Tensor, targets: Tensor) -> Tensor:
    """Half cross-entropy with the labels, half with the float network's softened answer.

    logits: [B, C]; targets: [B, 2C], the float network's logits, then the labels as 0 and 1.
    """
    answers, labels = targets.chunk(2, dim=1)
    return distilled(logits, answers, F.cross_entropy(logits, labels), _TEMPERATURE, _SHARE)

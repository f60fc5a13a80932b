"""Moved images with a teacher's answers: the answers fit the images, and none is asked for twice."""

import torch
from torch import Tensor, nn

from fewbits.data.split import Split
from fewbits.reproduce.lessons import Lessons


class Teacher(nn.Module):
    """Answers by what it sees, and counts."""

    def __init__(self):
        super().__init__()
        self.asked = 0
        self.weight = torch.randn(2 * 16, 3, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return x.flatten(1) @ self.weight


def test_answers_belong_to_the_moved_images_and_are_asked_for_once() -> None:
    x = torch.randn(50, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    y = torch.arange(50) % 3
    x[:, 0] = torch.arange(50.0).reshape(-1, 1, 1)  # tells which image it is, wherever it lies
    teacher = Teacher()
    lessons = Lessons(Split(x, y), teacher, shift=1, batch_size=8, precision=torch.bfloat16)
    for epoch in range(60):
        batches = list(lessons.epoch(epoch))
        for images, targets in batches:
            logits, labels = targets.split(3, 1)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(logits, (images.flatten(1) @ teacher.weight).float())
            numbers = images[:, 0].flatten(1).max(1).values.long()
            assert torch.equal(labels, nn.functional.one_hot(y[numbers], 3).float())
        assert sum(len(images) for images, _ in batches) == 50
    assert teacher.asked == 9 * 50


def test_a_seed_decides_order_and_places() -> None:
    split = Split(torch.rand(30, 1, 5, 5, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2)

    def images(seed: int) -> Tensor:
        lessons = Lessons(split, nn.Flatten(), shift=1, batch_size=7, precision=torch.bfloat16)
        return torch.cat([x for x, _ in lessons.epoch(seed)])

    assert torch.equal(images(3), images(3))
    assert not torch.equal(images(3), images(4))

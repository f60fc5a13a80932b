"""Knowledge distillation: a loss on the float network's outputs beside that on labels.

Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, §2.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.errors import DataError


def distilled(outputs: torch.Tensor, answers: torch.Tensor, of_labels: torch.Tensor, temperature: float,
              share: float) -> torch.Tensor:
    """share · T² · KL(softmax(answers/T) ‖ softmax(outputs/T)) + (1 − share) · of_labels.

    outputs, answers: logits [B, C] of the student and of its teacher; of_labels: the student's loss on the labels.
    """
    wanted = F.softmax(answers / temperature, 1)
    followed = F.kl_div(F.log_softmax(outputs / temperature, 1), wanted, reduction="batchmean") * temperature**2
    return share * followed + (1 - share) * of_labels


@dataclass(frozen=True, eq=False)
class Distillation:
    """teacher: gives the logits to follow, in evaluation mode; temperature: by which both are divided; share: of the
    loss, the rest is the labels'."""

    teacher: nn.Module
    temperature: float = 4.0
    share: float = 0.7

    def __post_init__(self):
        if not (self.temperature > 0 and 0 <= self.share <= 1):
            raise DataError(f"distillation needs a temperature above 0 and a share from 0 to 1, not "
                            f"{self.temperature:g} and {self.share:g}")

    def loss(self, inputs: torch.Tensor, outputs: torch.Tensor, of_labels: torch.Tensor) -> torch.Tensor:
        """`distilled`, with the teacher's answers to `inputs`."""
        with torch.no_grad():
            answers = self.teacher(inputs)
        return distilled(outputs, answers, of_labels, self.temperature, self.share)

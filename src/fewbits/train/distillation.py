"""Learning from the float network's outputs as well as from labels.

Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, §2.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fewbits.errors import DataError


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
        """share · T² · KL(teacher ‖ student) + (1 − share) · of_labels; inputs: what the student was given."""
        with torch.no_grad():
            wanted = F.log_softmax(self.teacher(inputs) / self.temperature, 1)
        given = F.log_softmax(outputs / self.temperature, 1)
        followed = F.kl_div(given, wanted, reduction="batchmean", log_target=True) * self.temperature**2
        return self.share * followed + (1 - self.share) * of_labels

"""Which numbers, added to the scores of an attention, hide a place."""

import torch

LOW = -64.0
"""At most this hides a place: beside a place at 0 it weighs at most e^-64, 1.6e-28, of which float32 keeps nothing."""


def hiding_number(example: torch.Tensor) -> float:
    """The largest of an input's numbers that hides a place of an attention it is added to; 0 where there is none."""
    if example.dtype != torch.float32 or not (low := example[example <= LOW]).numel():
        return 0.0
    return float(low.max())

"""Calls that a graph may hold beside ATen's: what `fold` puts in place of larger operators.

Those that a program may make in float as well come from there.
"""

from typing import Any

import torch
import torch.nn.functional as F

from fewbits.program.functions import bounded as bounded
from fewbits.program.functions import join as join
from fewbits.program.functions import lookup as lookup
from fewbits.program.functions import masked_softmax as masked_softmax
from fewbits.program.functions import quotient as quotient
from fewbits.program.functions import two_pieces as two_pieces


def entered(x: torch.Tensor) -> torch.Tensor:
    """x itself, where it enters what is quantized (fold/exact.py)."""
    return x


def insert_zeros(x: torch.Tensor, factors: list[int]) -> torch.Tensor:
    """Zeros between neighbours, the first half of a transposed convolution.

    x: [N, C, *sizes]; factors: one per axis behind the channels. Returns [N, C, *((s − 1)·f + 1)].
    """
    sizes = [(size - 1) * factor + 1 for size, factor in zip(x.shape[2:], factors, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *sizes)
    wide[(slice(None), slice(None), *(slice(None, None, factor) for factor in factors))] = x
    return wide


def adaptive_max_pool(x: torch.Tensor, output_size: list[int]) -> torch.Tensor:
    """The largest in each of `output_size` windows per axis behind the channels, without their positions."""
    pool = F.adaptive_max_pool2d if x.ndim == 4 else F.adaptive_max_pool3d
    return pool(x, tuple(output_size))


def recurrence(body: Any, axis: int, backwards: bool) -> tuple[torch.Tensor, ...]:
    """Runs a body (graph.Body) once for each entry of its sequences along an axis, or from the last entry to the first:
    its output of all steps, stacked along that axis, and each state as the last step left it. `Model.call` does it."""
    raise AssertionError("a recurrence is run by the model that holds it")


def step(sequence: torch.Tensor) -> torch.Tensor:
    """In a body, the entry of a sequence outside at the step that is being run."""
    raise AssertionError("a step is run by the recurrence around it")


def state(first: torch.Tensor | None, following: str) -> torch.Tensor:
    """In a body, what the step before made under the name of `following`; at the first step `first`, or 0."""
    raise AssertionError("a state is run by the recurrence around it")

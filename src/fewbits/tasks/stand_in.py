"""Inputs made up where nobody has data: enough to capture a network and to compare engines, not to find ranges."""

import torch

from fewbits.data.split import DataSet, Split
from fewbits.errors import DataError
from fewbits.tasks.registry import Task

_COUNT = 16


def stand_in(task: Task) -> DataSet:
    """16 inputs of the shape the network takes: standard normal numbers, or any of its tokens; always the same.

    Raises DataError where only the user knows the shape.
    """
    if task.example_shape is None:
        raise DataError(f"what {task.name} takes is not known without data: give --data, if only a few examples")
    generator, shape = torch.Generator().manual_seed(0), (_COUNT, *task.example_shape)
    x = (torch.randn(shape, generator=generator) if task.tokens is None
         else torch.randint(task.tokens, shape, generator=generator))
    split = Split(x)
    return DataSet("made-up inputs", split, split, split)

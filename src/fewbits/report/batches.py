"""Batches as both sides of a measurement take them: tensors for the model, arrays for the Program."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from fewbits.errors import DataError
from fewbits.program.inputs import Batch, bind, check, with_batch_axis
from fewbits.program.program import Program
from fewbits.progress import track
from fewbits.quant.calibrate import BatchToInputs


def bound(program: Program, batches: Iterable[Batch], what: str,
          batch_to_inputs: BatchToInputs = None) -> Iterator[dict[str, torch.Tensor]]:
    """Each batch as tensors by input name, with a progress bar that says `what`.

    batches: as for calibration: what the model takes, or what `batch_to_inputs` turns into that. Raises
    DataError, naming the batch, for a wrong shape or type, NaN or Inf, or no batches at all.
    """
    if isinstance(batches, torch.Tensor):
        raise DataError("the batches are one tensor: put it in a list, or give a loader")
    number = -1
    for number, batch in enumerate(track(batches, what)):
        try:
            tensors, _ = with_batch_axis(bind(program.inputs, batch, batch_to_inputs),
                                         {name: program.values[name].taken for name in program.inputs})
            for name, tensor in tensors.items():
                check(tensor, name, program.values[name].taken, program.values[name].dtype)
                if not tensor.numel() or not torch.isfinite(tensor).all():
                    raise DataError(f"input {name!r} is empty or holds NaN or Inf")
        except DataError as error:
            raise DataError(f"batch {number}: {error}") from error
        yield tensors
    if number < 0:
        raise DataError("there are no batches to measure on: give at least one")


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The same inputs as a Program takes them."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}

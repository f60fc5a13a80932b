"""Numbers that a caller gives as a list, an array or a tensor, made an array or refused."""

import numpy as np
import numpy.typing as npt
import torch

from fewbits.errors import EncodingError
from fewbits.options import shown


def array(x: npt.ArrayLike | torch.Tensor) -> np.ndarray:
    """Numbers of a list, an array or a tensor: float32 where they are, else float64. Raises EncodingError for none."""
    values = real_numbers(x)
    if not values.size:
        raise EncodingError("there are no numbers here: give at least one")
    return values if values.dtype == np.float32 else values.astype(np.float64)


def real_numbers(x: npt.ArrayLike | torch.Tensor, whole: bool = False) -> np.ndarray:
    """The same in their own type. whole: integers beyond 64 bits are numbers, too, as objects. Raises EncodingError for
    what is no array of real numbers."""
    try:
        if isinstance(x, torch.Tensor):
            x = (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
        values = np.asarray(x)
    except (ValueError, TypeError, RuntimeError, NotImplementedError, OverflowError):
        raise EncodingError(f"{shown(x)} is no array of real numbers: give one whose rows are equally long") from None
    integers = whole and values.dtype == object and all(isinstance(each, int) for each in values.flat)
    if values.dtype.kind not in "biuf" and not integers:
        raise EncodingError(f"{shown(x)} is of no type of real numbers: give an array of them")
    return values


def finite_array(x: npt.ArrayLike | torch.Tensor) -> np.ndarray:
    """As `array`. Raises EncodingError for NaN, Inf and numbers beyond float32, too."""
    values = array(x)
    if not np.isfinite(values).all():
        raise EncodingError("the numbers hold NaN or Inf: mend them first")
    if values.dtype != np.float32 and np.abs(values).max() > np.finfo(np.float32).max:
        raise EncodingError("the numbers reach beyond float32, in which scales are: divide them first")
    return values

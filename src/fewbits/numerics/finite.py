"""Finds NaN and infinities in data."""

import torch


def not_finite(x: torch.Tensor) -> str:
    """"" when every element is finite, else "NaN" or "Inf": the first kind that is there.

    Looks at the smallest and the largest element, which NaN and infinities reach, so that no copy of a large
    tensor is made.
    """
    if x.numel() == 0 or not x.is_floating_point():
        return ""
    low, high = x.detach().aminmax()
    if torch.isnan(low) or torch.isnan(high):
        return "NaN"
    return "" if torch.isfinite(low) and torch.isfinite(high) else "Inf"

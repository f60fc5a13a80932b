"""NNCF's quantizer on the same network and batches: 8 bits, weights symmetric, activations asymmetric, simulated."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

NAME = "NNCF"


def is_installed() -> bool:
    return importlib.util.find_spec("nncf") is not None


def quantized_by_nncf(net: nn.Module, batches: list[torch.Tensor]) -> Callable[[torch.Tensor], Any]:
    """Its post-training quantization as it comes (with its fast bias correction), over all batches."""
    import nncf  # pyright: ignore[reportMissingImports]

    model: Any = nncf.quantize(net, nncf.Dataset(batches), preset=nncf.QuantizationPreset.MIXED,
                               subset_size=len(batches))
    model.eval()

    def run(x: torch.Tensor) -> Any:
        with torch.no_grad():
            return model(x)

    return run

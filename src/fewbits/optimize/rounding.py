"""Writes chosen weight codes back into a simulation, for repairs that decide each rounding.

The codes go back into the model as numbers, code · scale. Nearest rounding then gives exactly these codes, in the
simulation and in lowering, so neither needs to know that somebody chose them (tests/optimize/test_rounding.py).
"""

import numpy as np
import torch

from fewbits.errors import RepairError
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Int
from fewbits.quant.simulation import Simulation


def grid(encoding: Encoding, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, zero point) of every element of the weight, float32, its shape."""
    scale, zero_point = (encoding.block.expand(torch.from_numpy(v.copy()).to(weight.device), weight.shape)
                         for v in (encoding.scale, encoding.zero_point))
    return scale.expand(weight.shape), zero_point.float().expand(weight.shape)


def nearest(encoding: Encoding, weight: torch.Tensor) -> torch.Tensor:
    """The codes of nearest rounding, float32."""
    return torch.from_numpy(encoding.encode(weight.detach().cpu().numpy()).codes.astype(np.float32)).to(weight.device)


def numbers(encoding: Encoding, codes: torch.Tensor) -> torch.Tensor:
    """What codes stand for, float32, as lowering decodes them."""
    return torch.from_numpy(encoding.decode(codes.cpu().numpy())).to(codes.device)


def write_codes(simulation: Simulation, weight: str, codes: torch.Tensor) -> None:
    """Makes the weight those codes. codes: whole numbers within the format, shape of the weight."""
    values = numbers(simulation.quantizer(weight).encoding, codes)
    with torch.no_grad():
        simulation.model.tensor(weight).copy_(values)


def integer_encoding(simulation: Simulation, weight: str) -> Encoding:
    """The encoding of a weight whose rounding is to be chosen. Raises RepairError unless it is of integers."""
    encoding = simulation.quantizer(weight).encoding
    if not isinstance(encoding.format, Int):
        raise RepairError(f"weight {weight!r} has {encoding.format}, and rounding is chosen among integers only: "
                          "use an integer format there")
    return encoding

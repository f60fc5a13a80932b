"""TensorRT's calibration table: a text file of one scale per tensor.

    TRT-8601-EntropyCalibration2
    input: 3c010a14

Each line holds a tensor's name and the big-endian bits of a float32 in hexadecimal: scale = threshold/127 of
TensorRT's symmetric int8 grid. Source: TensorRT developer guide, "INT8 calibration"; the bits as in NVIDIA's samples.
"""

import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fewbits.errors import CalibrationError, FileError
from fewbits.files import read_whole, write_whole
from fewbits.limits import TEXT_BYTES
from fewbits.numerics.block import TENSOR
from fewbits.quant.simulation import Simulation
from fewbits.ranges.scale import encoding_for

HEADER = "TRT-8601-EntropyCalibration2"
_LINE = re.compile(r"(.+): ([0-9a-fA-F]{1,8})")


def write_table(simulation: Simulation, path: str | Path, header: str = HEADER) -> None:
    """Writes the scales of inputs and activations, each threshold being the far end of the tensor's range.

    Raises CalibrationError, naming the tensor, for encodings that are not 8 bits wide and per tensor.
    """
    lines = [header]
    for quantizer in simulation.quantizers():
        if simulation.plan.sites[quantizer.site].kind not in ("input", "activation"):
            continue
        encoding = quantizer.encoding
        if encoding.format.bits != 8 or encoding.block != TENSOR:
            raise CalibrationError(f"tensor {quantizer.site!r} is {quantizer.spec}: TensorRT's table holds 8-bit "
                                   "scales per tensor only")
        zero_point, scale = int(encoding.zero_point), float(encoding.scale)
        below = encoding.format.high if quantizer.spec.symmetric else zero_point - encoding.format.low
        reach = max(encoding.format.high - zero_point, below) * scale
        lines.append(f"{quantizer.site}: {struct.pack('>f', reach / 127).hex()}")
    write_whole(path, ("\n".join(lines) + "\n").encode())


def read_table(path: str | Path) -> dict[str, float]:
    """Scale by tensor name. Raises FileError, naming the line, for what is no such table."""
    try:
        lines = read_whole(path, TEXT_BYTES, "a calibration table").decode().splitlines()
    except UnicodeDecodeError as error:
        raise FileError(f"{path} cannot be read as text ({type(error).__name__}): give TensorRT's calibration table") \
            from None
    if not lines or not lines[0].startswith("TRT-"):
        raise FileError(f"{path} is no TensorRT calibration table: its first line must begin with TRT-")
    scales = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise FileError(f"{path}, line {number}: {line[:60]!r} is not `name: hexadecimal`")
        scale = struct.unpack(">f", bytes.fromhex(match[2].zfill(8)))[0]
        if not (math.isfinite(scale) and scale > 0):
            raise FileError(f"{path}, line {number}: the scale of {match[1][:60]!r} is {scale:g}, no positive number")
        scales[match[1]] = scale
    return scales


def apply_table(simulation: Simulation, scales: Mapping[str, float]) -> Simulation:
    """A copy whose inputs and activations have the ranges of a table: ±127·scale; asymmetric ones that start at 0 keep
    to [0, 127·scale]. Raises CalibrationError for a tensor the table leaves out."""
    changed = simulation.copy()
    for quantizer in changed.quantizers():
        if changed.plan.sites[quantizer.site].kind not in ("input", "activation"):
            continue
        if quantizer.site not in scales:
            raise CalibrationError(f"the table has no scale for tensor {quantizer.site!r}: it is of another network")
        spec, old = quantizer.spec, quantizer.encoding
        high = np.full(old.scale.shape, 127 * scales[quantizer.site])
        starts_at_zero = bool((old.zero_point == spec.format.low).all()) and not (spec.symmetric and spec.format.signed)
        low = np.zeros_like(high) if starts_at_zero else -high
        quantizer.encoding = encoding_for(low, high, spec.format, spec.symmetric, spec.scale, spec.block)
    return changed

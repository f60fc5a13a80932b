"""Quantization rules of other tools as data: scale, rounding and zero point of each, and one tensor through all.

The rows say what a tool does when it quantizes in 8 bits; `encode_as` follows a row literally, in the float
type it names. Where the tool can be had it is an oracle of the tests; the others follow the sources named.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Int
from fewbits.numerics.rounding import RULES
from fewbits.ranges.scale import Convention, encoding_for


@dataclass(frozen=True)
class Tool:
    """How a tool quantizes a tensor. One row of the truth table.

    format: its codes; scale: `asymmetric`, a symmetric convention of scale.py, or `min-max`, where code 0
    means the minimum itself and 0 may have no code. quotient: x/scale or x · (1/scale). rounding: of codes,
    by name. zero_point: added before or after rounding; its own rounding is `zero_rounding`.
    kind: the float type of the arithmetic. offset_sign: -1 where the tool shows minus our zero point.
    """

    name: str
    format: Int
    scale: Literal["asymmetric", "min-max"] | Convention
    quotient: Literal["division", "reciprocal"] = "division"
    rounding: str = "half_even"
    zero_point: Literal["after", "before"] = "after"
    zero_rounding: str = "half_even"
    kind: Literal["float32", "float64"] = "float32"
    offset_sign: Literal[1, -1] = 1
    source: str = ""


_U8, _I8, _I8_NARROW = Int(8, signed=False), Int(8), Int(8, narrow=True)

TOOLS: tuple[Tool, ...] = (
    Tool("fewbits, activations", _U8, "asymmetric", source="scale.py, affine.py"),
    Tool("fewbits, weights", _I8, "restricted", source="scale.py, affine.py"),
    Tool("ONNX Runtime, activations", _U8, "asymmetric", source="ONNX QuantizeLinear; quantization tool, uint8"),
    Tool("ONNX Runtime, weights", _I8_NARROW, "restricted", source="quantization tool, symmetric int8"),
    Tool("torch fake_quantize", _U8, "asymmetric", "reciprocal", source="torch.fake_quantize_per_tensor_affine"),
    Tool("torch quantize_per_tensor", _U8, "asymmetric", "reciprocal", zero_point="before",
         source="torch.quantize_per_tensor, quint8"),
    Tool("torch observer, symmetric", _I8, "torch", "reciprocal", source="torch.ao MinMaxObserver, qint8"),
    Tool("torchao PT2E, activations", _I8, "asymmetric", "reciprocal",
         source="quantized_decomposed.quantize_per_tensor"),
    Tool("torchao PT2E, weights", _I8_NARROW, "torch", "reciprocal", source="XNNPACK quantizer, [-127, 127]"),
    Tool("AIMET, activations", _U8, "asymmetric", rounding="half_away", zero_point="before",
         zero_rounding="half_away", kind="float64", offset_sign=-1, source="AIMET 1.26, quantization_utils.cpp"),
    Tool("AIMET, weights", _I8, "restricted", rounding="half_away", kind="float64", offset_sign=-1,
         source="AIMET 1.26, not strict: scale max/127, clamped to [-128, 127]"),
    Tool("TensorFlow min/max", _U8, "min-max", rounding="half_away", kind="float64",
         source="the lecture's 8-bit min/max: code 0 is the minimum, 255 the maximum"),
    Tool("gemmlowp", _U8, "asymmetric", rounding="half_away", zero_point="before", zero_rounding="half_away",
         kind="float64", source="gemmlowp, doc/quantization_example.cc"),
    Tool("Ristretto, parameters", _I8, "dynamic-weights", rounding="half_away", source="base_ristretto_layer.cpp"),
    Tool("Ristretto, activations", _I8, "dynamic-activations", rounding="half_away",
         source="base_ristretto_layer.cpp"),
)


@dataclass(frozen=True)
class Outcome:
    """What a tool makes of a tensor: scale, zero point as the tool shows it (a real number for `min-max`),
    integer codes and the float64 numbers that they stand for."""

    scale: float
    zero_point: float
    codes: np.ndarray
    numbers: np.ndarray


def tool(name: str) -> Tool:
    """The row of that name. Raises EncodingError when there is none."""
    for each in TOOLS:
        if each.name == name:
            return each
    raise EncodingError(f"no tool is called {name!r}: choose one of {', '.join(each.name for each in TOOLS)}")


def encode_as(tool: Tool, x: np.ndarray, low: float | None = None, high: float | None = None) -> Outcome:
    """x as the tool encodes it in the range [low, high], the range of x when None; a whole tensor at a time.

    Raises EncodingError for a range that is not finite or has no width.
    """
    x = np.asarray(x, tool.kind)
    low = float(x.min()) if low is None else low
    high = float(x.max()) if high is None else high
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise EncodingError(f"{tool.name} needs a finite range with a width, not {low:.6g} to {high:.6g}")
    kind = np.dtype(tool.kind).type
    scale, zero = _grid(tool, low, high)
    scale = kind(scale)
    round_code = RULES[tool.rounding]
    steps = x * (kind(1) / scale) if tool.quotient == "reciprocal" else x / scale
    if tool.scale == "min-max":
        code = round_code((x - kind(low)) / scale)
    elif tool.zero_point == "before":
        code = round_code(steps + kind(zero))
    else:
        code = round_code(steps) + kind(zero)
    code = code.clip(tool.format.low, tool.format.high)
    numbers = (code.astype(np.float64) - zero) * float(scale)
    return Outcome(float(scale), tool.offset_sign * zero + 0.0, code.astype(tool.format.dtype), numbers)


def _grid(tool: Tool, low: float, high: float) -> tuple[float, float]:
    """Scale and zero point, in float64."""
    lowest, highest = tool.format.low, tool.format.high
    if tool.scale == "min-max":
        scale = (high - low) / (highest - lowest)
        return scale, lowest - low / scale
    if tool.scale == "asymmetric":
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.dtype(tool.kind).type((high - low) / (highest - lowest)))
        zero = RULES[tool.zero_rounding](np.array(lowest - low / scale))
        return scale, float(zero.clip(lowest, highest))
    encoding = encoding_for(np.array(low), np.array(high), tool.format, True, tool.scale)
    if tool.kind == "float64" and tool.scale == "restricted":
        return max(-low, high) / highest, 0.0
    return float(encoding.scale), 0.0


SHOWN = np.array([-101.0, -2.5, -0.5, 0.0, 0.5, 1.5, 2.5, 100.25, 154.0]) / 128
"""The tensor of the truth table: its range is 255/128, its zero point 101, odd, and it has exact ties."""


def truth_table() -> str:
    """Markdown: SHOWN through every tool."""
    head = ["tool", "codes", "scale", "zero point", *(f"{v * 128:g}/128" for v in SHOWN)]
    rows = [head, ["---"] * len(head)]
    for each in TOOLS:
        outcome = encode_as(each, SHOWN)
        rows.append([each.name, f"{each.format.low} … {each.format.high}", f"{outcome.scale * 128:.6g}/128",
                     f"{outcome.zero_point:.6g}", *(str(code) for code in outcome.codes)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)



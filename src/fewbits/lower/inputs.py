"""How floats become codes: those of inputs, and those that islands give."""

import numpy as np

from fewbits.graph.graph import Shape
from fewbits.lower.context import Context, integers
from fewbits.lower.threshold import of_numbers
from fewbits.numerics.formats import Int
from fewbits.program import ops as op


def input_codes(name: str) -> str:
    """Name of the codes of a float input."""
    return f"{name}.codes"


def read_input(context: Context, name: str, shape: Shape) -> None:
    """Quantizes a float input."""
    context.names[name] = quantized(context, name, name, input_codes(name), shape)


def quantized(context: Context, site: str, source: str, codes: str, shape: Shape) -> str:
    """Quantizes the float value `source` by a tensor's encoding, as `codes`: by a scale, or by comparison where the
    format is a table or float."""
    quantizer = context.simulation.quantizer(site)
    if isinstance(quantizer.format, Int):
        context.check_rounding(quantizer)
        encoding = context.stored(quantizer.encoding)
        context.check_codes(site, encoding)
        return context.emit(op.Quantize(codes, source), shape, encoding)
    encoding = context.uneven_encoding(quantizer)
    thresholds = of_numbers(quantizer.format, integers(quantizer), quantizer.encoding.scale)
    return context.emit(
        op.Threshold(codes, source, thresholds, np.ones(1, np.int8), context.level_codes(quantizer), len(shape) - 1),
        shape, encoding)

"""How float inputs become codes."""

import numpy as np

from fewbits.graph.graph import Shape
from fewbits.lower.context import Context, integers
from fewbits.lower.threshold import of_numbers
from fewbits.numerics.formats import Int
from fewbits.program import nodes as op


def input_codes(name: str) -> str:
    """Name of the codes of a float input."""
    return f"{name}.codes"


def read_input(context: Context, name: str, shape: Shape) -> None:
    """Quantizes a float input: by a scale, or by comparison where its format is a table or float."""
    quantizer, codes = context.simulation.quantizer(name), input_codes(name)
    if isinstance(quantizer.spec.format, Int):
        context.check_rounding(quantizer)
        context.check_codes(name, quantizer.encoding)
        context.names[name] = context.emit(op.Quantize(codes, name), shape, quantizer.encoding)
        return
    encoding = context.uneven_encoding(quantizer)
    thresholds = of_numbers(quantizer.spec.format, integers(quantizer), quantizer.encoding.scale)
    context.names[name] = context.emit(
        op.Threshold(codes, name, thresholds, np.ones(1, np.int8), context.level_codes(quantizer), len(shape) - 1),
        shape, encoding)

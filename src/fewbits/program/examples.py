"""Examples of records as programs: what a node reads is made of inputs, and what it writes is the output."""


import numpy as np

from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import parse
from fewbits.program.node import ProgramNode
from fewbits.program.ops import Constant, Linear, Quantize
from fewbits.program.ops.record import Example
from fewbits.program.ops.samples import X
from fewbits.program.profile import profile
from fewbits.program.program import Program
from fewbits.program.value import Dtype, Shape, Value

BATCH = 2
_TERMS = 6  # products in each sum that an example reads
_SUMS = (-(2**31), 2**31 - 1)


def as_program(example: Example, seed: int = 0) -> tuple[Program, dict[str, np.ndarray]]:
    """The program around an example's node, and inputs for it: a batch of 2, beyond the range of their codes here and
    there. Codes are quantized inputs, sums those of a fully connected layer."""
    random = np.random.default_rng(seed)
    nodes: list[ProgramNode] = [Constant(name, data) for name, data in example.constants.items()]
    values = {name: Value(data.codes.shape, data.encoding) for name, data in example.constants.items()}
    inputs: dict[str, np.ndarray] = {}

    def given(name: str, shape: Shape, encoding: Encoding | None, dtype: Dtype = "float32") -> None:
        values[name] = Value(shape, None, dtype)
        sizes = tuple(BATCH if size is None else size for size in shape)
        if dtype != "float32":
            inputs[name] = random.integers(0, 2, sizes).astype(dtype)
            return
        numbers = random.normal(0, 1, sizes)
        if encoding is not None:
            low, high = encoding.decode(np.array([encoding.format.low, encoding.format.high]))
            numbers = random.uniform(1.1 * low, 1.1 * high, sizes)
        inputs[name] = numbers.astype(np.float32)

    def coded(name: str, shape: Shape, encoding: Encoding) -> None:
        given(f"{name}.real", shape, encoding)
        nodes.append(Quantize(name, f"{name}.real"))
        values[name] = Value(shape, encoding)

    whose = profile(example.profile)
    for name, value in example.reads.items():
        if value.encoding is None:
            given(name, value.shape, None, value.dtype)
        elif value.encoding.format == whose.accumulator:
            coded(f"{name}.codes", (*value.shape[:-1], _TERMS), X)
            weight = Quantized(random.integers(-128, 128, (value.shape[-1] or 1, _TERMS)),
                               Encoding(parse("int8"), value.encoding.scale / X.scale))
            nodes.append(Linear(name, f"{name}.codes", weight, None, *_SUMS))
            values[name] = value
        else:
            coded(name, value.shape, value.encoding)
    nodes.append(example.node)
    values[example.node.name] = example.writes
    values |= example.beside
    return Program(whose, tuple(inputs), tuple(nodes), values, example.node.name), inputs

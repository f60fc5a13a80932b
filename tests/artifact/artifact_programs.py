"""Small programs, built by hand, and ways to forge a file whose hashes are right."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from fewbits.artifact.file import PROGRAM, to_bytes
from fewbits.numerics.block import CHANNEL, TENSOR, Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import ACCUMULATOR, Int, parse
from fewbits.program import ops as op
from fewbits.program.profile import ONNXRUNTIME
from fewbits.program.program import Program
from fewbits.program.requantize import accumulator_scale
from fewbits.program.value import Value
from fewbits.storage import container

X = Encoding(parse("uint8"), 0.02, 128)
Y = Encoding(parse("uint8"), 0.05, 3)


def weight(shape: tuple[int, ...], format: str = "int8", block: Block = CHANNEL, seed: int = 0) -> Quantized:
    random, fitted = np.random.default_rng(seed), parse(format)
    scale = random.uniform(0.001, 0.01, block.scale_shape(shape))
    return Quantized(random.integers(fitted.low, fitted.high + 1, shape), Encoding(fitted, scale, 0, block))


def sums(x: Encoding, w: Quantized) -> Encoding:
    """Encoding of a Linear's accumulators over rows."""
    scale = accumulator_scale(x, w.encoding)
    return Encoding(
        ACCUMULATOR,
        scale.reshape(1, -1) if scale.ndim else scale,
        0,
        Block((-1, 1)) if scale.ndim else TENSOR,
    )


def linear(format: str = "int4", block: Block = CHANNEL, outputs: int = 3) -> Program:
    """The smallest: one input, one matrix."""
    w = weight((outputs, 5), format, block)
    fc = op.Linear("fc", "x.codes", w, np.arange(outputs, dtype=np.int32), -(2**31), 2**31 - 1)
    return Program(
        ONNXRUNTIME,
        ("x",),
        (op.Quantize("x.codes", "x"), fc),
        {
            "x": Value((None, 5), None),
            "x.codes": Value((None, 5), X),
            "fc": Value((None, outputs), sums(X, w)),
        },
        "fc",
    )


def every_node() -> Program:
    """Each node once or more, two inputs, and outputs in a structure."""
    fc = weight((3, 12), "int8-narrow", TENSOR, seed=2)
    nodes = (
        op.Quantize("x.codes", "x"),
        op.Quantize("z.codes", "z"),
        op.Pad("pad", "x.codes", ((0, 0), (0, 0), (1, 1), (0, 1))),
        op.Conv(
            "a.conv",
            "pad",
            weight((4, 1, 3, 3), seed=1),
            np.arange(-2, 2, dtype=np.int32) * 100,
            (1, 1),
            ((1, 0), (0, 1)),
            (1, 1),
            2,
            0,
            255,
        ),
        op.MaxPool("a.pool", "a.conv", (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
        op.AveragePool("a.average", "a.pool", (2, 2), (1, 1), ((0, 1), (0, 1)), np.int32([[4]]), 0, 255),
        op.Constant("shift", Quantized(np.array([1, 60, 200, 9]).reshape(1, 4, 1, 1), Y)),
        op.Add("add", "a.average", "shift", 3, 255),
        op.Add("twice", "add", "add", 0, 255),
        op.Requantize("relu", "twice", 3, 120),
        op.Concat("cat", ("relu", "add"), 1, 0, 255),
        op.Slice("slice", "cat", 1, 1, 7, 2),
        op.Transpose("turn", "slice", (0, 2, 3, 1)),
        op.Mean("mean", "turn", (1,), False, 0, 255),
        op.Table("table", "mean", np.arange(4 * 256, dtype=np.uint8).reshape(4, 256), "wrap"),
        op.LayerNorm("norm", "table", np.float32([1, 2, 3]), np.float32([0, -1, 0.1]), 1e-5, 0, 255),
        op.Softmax("shares", "norm", np.tri(4, 3, dtype=np.uint8), 0.7, 0, 255),
        op.Mul("mul", "norm", "shares", 0, 250),
        op.Gather("pick", "mul", 1, (3, 0, 0)),
        op.MatMul("matmul", "pick", "pick", 0, 255),
        op.Embedding("rows", "ids", Quantized(np.arange(15).reshape(5, 3), Y)),
        op.Sub("less", "rows", "rows", 0, 255),
        op.Reshape("flat", "mean", (-1, 12)),
        op.Linear("fc", "flat", fc, None, -(2**31), 2**31 - 1),
        op.Threshold("z.level", "z", np.float32([[-0.5, 0.1, 0.7]]), np.ones(1, np.int8),
                     np.uint8([0, 5, 6, 200]), 1),
        op.Linear("fc.sums", "flat", fc, None, -(2**31), 2**31 - 1),
        op.Threshold("signs", "fc.sums", np.int32([[-90], [7], [300]]), np.int8([1, -1, 1]), np.uint8([0, 2]), 1),
        op.Dequantize("mean.real", "mean"),
        op.FloatConstant("bias", np.float32([0.5, -1])),
        op.Constant("rows.weight", weight((2, 3), "int4", seed=3)),
        op.Dequantize("rows.real", "rows.weight"),
        op.FloatCall("island", "aten.linear.default", {
            "input": op.Read("mean.real"), "weight": op.Read("rows.real"), "bias": op.Read("bias")}),
        op.FloatCall("joined", "aten.cat.default", {"tensors": (op.Read("island"), op.Read("island")), "dim": 2}),
        op.FloatCall("bounded", "aten.clamp.default", {"self": op.Read("joined"), "min": -0.5, "max": None}),
        op.Quantize("behind", "bounded"),
        op.Constant("cols.weight", weight((2, 4), "int8", seed=4)),
        op.DynamicLinear("found", "bounded", "cols.weight", "bias"),
        op.Constant("taps", weight((4, 2, 3), "int3", TENSOR, seed=5)),
        op.DynamicConv("slid", "bounded", "taps", None, (2,), ((1, 0),), (1,), 2),
        op.LogSoftmax("logs", "pick", 0, 255),
        op.Min("low", "logs", "pick", 2, 255),
        op.Max("high", "logs", "pick", 2, 255),
        op.Div("ratio", "low", "pick", 0, 250),
    )
    values = {
        "x": Value((None, 2, 8, 8), None),
        "z": Value((None, 4), None),
        "x.codes": Value((None, 2, 8, 8), X),
        "z.codes": Value((None, 4), Y),
        "pad": Value((None, 2, 10, 9), X),
        "a.conv": Value((None, 4, 9, 8), Y),
        "a.pool": Value((None, 4, 4, 4), Y),
        "a.average": Value((None, 4, 4, 4), Y),
        "shift": Value((1, 4, 1, 1), Y),
        "add": Value((None, 4, 4, 4), Y),
        "twice": Value((None, 4, 4, 4), Y),
        "relu": Value((None, 4, 4, 4), X),
        "cat": Value((None, 8, 4, 4), Y),
        "slice": Value((None, 3, 4, 4), Y),
        "turn": Value((None, 4, 4, 3), Y),
        "mean": Value((None, 4, 3), Y),
        "table": Value((None, 4, 3), Y),
        "norm": Value((None, 4, 3), Y),
        "shares": Value((None, 4, 3), Encoding(parse("uint8"), 1 / 255, 0)),
        "mul": Value((None, 4, 3), Y),
        "pick": Value((None, 3, 3), Y),
        "matmul": Value((None, 3, 3), X),
        "z.level": Value((None, 4), Y),
        "fc.sums": Value((None, 3), Encoding(ACCUMULATOR, 1e-3)),
        "signs": Value((None, 3), Encoding(parse("uint8"), 1, 1)),
        "ids": Value((None, 2), None, "int64"),
        "rows": Value((None, 2, 3), Y),
        "less": Value((None, 2, 3), Y),
        "mean.real": Value((None, 4, 3), None),
        "bias": Value((2,), None),
        "rows.weight": Value((2, 3), weight((2, 3), "int4", seed=3).encoding),
        "rows.real": Value((2, 3), None),
        "island": Value((None, 4, 2), None),
        "joined": Value((None, 4, 4), None),
        "bounded": Value((None, 4, 4), None),
        "behind": Value((None, 4, 4), Y),
        "cols.weight": Value((2, 4), weight((2, 4), "int8", seed=4).encoding),
        "found": Value((None, 4, 2), None),
        "taps": Value((4, 2, 3), weight((4, 2, 3), "int3", TENSOR, seed=5).encoding),
        "slid": Value((None, 4, 2), None),
        "logs": Value((None, 3, 3), Y),
        "low": Value((None, 3, 3), X),
        "high": Value((None, 3, 3), X),
        "ratio": Value((None, 3, 3), Y),
        "flat": Value((None, 12), Y),
        "fc": Value((None, 3), sums(Y, fc)),
    }
    structure = {"logits": "fc", "rest": ["mean", ("slice", None)], 7: {"z": "z.codes"},
                 "more": ["matmul", "less", "behind", "joined", "found", "slid", "ratio"]}
    return Program(ONNXRUNTIME, ("x", "z", "ids"), nodes, values, structure)


def forged(program: Program, change: Callable[[Any, dict[str, np.ndarray]], Any]) -> bytes:
    """The program's file with something changed, under hashes and a digest that are right again.

    change: takes the JSON and the tensors, both mutable; returns other JSON to write, or None.
    """
    tensors = dict(container.parse(to_bytes(program)).tensors)
    document = json.loads(tensors[PROGRAM].tobytes())
    changed = change(document, tensors)
    if PROGRAM in tensors:
        text = container.to_json(document if changed is None else changed)
        tensors[PROGRAM] = np.frombuffer(text, np.uint8)
    return container.build(tensors, "fewbits test")


def one_bit() -> Program:
    """All scales per tensor, one-bit codes: the shortest file."""
    return linear("int1", TENSOR, outputs=1)


ANY_INT = [
    *(Int(bits, signed) for bits in range(1, 17) for signed in (True, False)),
    *(Int(bits, True, True) for bits in range(2, 17)),
]

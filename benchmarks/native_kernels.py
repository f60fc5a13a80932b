"""`python -m benchmarks.native_kernels`: the native kernels beside ONNX Runtime and torch, as ratios.

All candidates of a row run in turns in one process on one thread; the figures are medians of thread CPU time, and a
ratio is the float peer's time over the candidate's. Weights and codes are random.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
import typer
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from fewbits.kernels import library, structs
from fewbits.kernels.calls import Calls, address, aligned
from fewbits.kernels.conv import Layer, pack
from fewbits.kernels.elementwise import table_struct
from fewbits.kernels.few_bits import Few, FewBits, Planes, Pruned
from fewbits.kernels.rescaling import Rescaling
from fewbits.kernels.rows import Exponentials, Normal
from fewbits.report.machine import this_machine

Call = Callable[[], object]
f32 = np.float32
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Convolution:
    """channels, out channels, height and width, kernel, stride, groups; padded to keep the size."""

    name: str
    channels: int
    outs: int
    size: int
    kernel: int
    stride: int = 1
    groups: int = 1


CONVOLUTIONS = (
    Convolution("3×3 64@56", 64, 64, 56, 3), Convolution("3×3 128@28", 128, 128, 28, 3),
    Convolution("3×3 256@14", 256, 256, 14, 3), Convolution("3×3 512@7", 512, 512, 7, 3),
    Convolution("3×3/2 64→128@56", 64, 128, 56, 3, 2), Convolution("7×7/2 3→64@224", 3, 64, 224, 7, 2),
    Convolution("3×3 16@32", 16, 16, 32, 3), Convolution("3×3 32@16", 32, 32, 16, 3),
    Convolution("1×1 64→384@14", 64, 384, 14, 1), Convolution("1×1 384→64@14", 384, 64, 14, 1),
    Convolution("1×1 16→96@112", 16, 96, 112, 1), Convolution("1×1 96→24@56", 96, 24, 56, 1),
    Convolution("1×1 24→144@56", 24, 144, 56, 1), Convolution("1×1 320→1280@7", 320, 1280, 7, 1),
    Convolution("depthwise/2 96@112", 96, 96, 112, 3, 2, 96), Convolution("depthwise 144@56", 144, 144, 56, 3, 1, 144),
    Convolution("depthwise 384@14", 384, 384, 14, 3, 1, 384), Convolution("depthwise 32@112", 32, 32, 112, 3, 1, 32),
    Convolution("4 groups 3×3 64@28", 64, 64, 28, 3, 1, 4))


def session(nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list[int]]], output: int,
            constants: dict[str, np.ndarray], level: str = "") -> ort.InferenceSession:
    """One thread."""
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info(n, *kind) for n, kind in inputs.items()],
                              [helper.make_tensor_value_info("y", output, None)],
                              [numpy_helper.from_array(value, name) for name, value in constants.items()])
    domains = [helper.make_opsetid("", 19), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if level:
        options.add_session_config_entry("session.x64quantprecision", level)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def medians(calls: list[Call], repeats: int = 31) -> list[float]:
    """Microseconds of thread CPU time, in turns."""
    times: list[list[int]] = [[] for _ in calls]
    for call in calls:
        call()
        call()
    for _ in range(repeats):
        for number, call in enumerate(calls):
            start = time.thread_time_ns()
            call()
            times[number].append(time.thread_time_ns() - start)
    return [float(np.median(some)) / 1e3 for some in times]


def at(level: library.Level, make: Callable[[], Calls]) -> Call:
    """A call at a level, prepared for it."""
    with library.use(level):
        calls = make()

    def run() -> None:
        with library.use(level):
            calls.run()

    return run


def codes(*shape: int) -> np.ndarray:
    """Aligned uint8."""
    x = aligned(shape)
    x[...] = RNG.integers(0, 256, shape)
    return x


def conv_calls(c: Convolution) -> Calls:
    """Ours."""
    margin = c.kernel // 2
    weights = np.clip(RNG.normal(0, 30, (c.outs, c.kernel, c.kernel, c.channels // c.groups)), -127,
                      127).astype(np.int8)
    rescaling = Rescaling(structs.FLOAT, structs.U8, 128, factor=np.full(c.outs, 1e-3, f32))
    layer = Layer(weights, np.zeros(c.outs, np.int32), rescaling, 128, (c.stride, c.stride), (1, 1), (margin, margin,
                                                                                                      margin, margin),
                  c.groups)
    x, y = codes(1, c.size, c.size, c.channels), aligned((1, *layer.out_size(c.size, c.size), c.outs))
    call = layer.struct((1, c.size, c.size, c.channels), beyond=structs.BEYOND)
    blob = pack(call)
    call.x, call.y = address(x), address(y)
    return Calls([call], [layer, x, y, blob])


def conv_peers(c: Convolution) -> list[Call]:
    """ONNX Runtime: float32, int8 as it is, int8 exact on every x86."""
    shape, kernel = [1, c.channels, c.size, c.size], (c.outs, c.channels // c.groups, c.kernel, c.kernel)
    attributes = {"kernel_shape": [c.kernel] * 2, "strides": [c.stride] * 2, "pads": [c.kernel // 2] * 4,
                  "group": c.groups}
    real = session([helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], {"x": (TensorProto.FLOAT, shape)},
                   TensorProto.FLOAT, {"w": RNG.normal(size=kernel).astype(f32)})
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    constants = {"xs": f32(0.02), "xz": np.uint8(128), "ws": f32(0.01), "wz": np.int8(0), "ys": f32(0.1),
                 "yz": np.uint8(128), "w": np.clip(RNG.normal(0, 30, kernel), -127, 127).astype(np.int8)}
    whole = [session([helper.make_node("QLinearConv", names, ["y"], **attributes)], {"x": (TensorProto.UINT8, shape)},
                     TensorProto.UINT8, {name: np.asarray(value) for name, value in constants.items()}, level)
             for level in ("", "1")]
    x, q = RNG.normal(size=shape).astype(f32), RNG.integers(0, 256, shape).astype(np.uint8)
    return [lambda: real.run(None, {"x": x}), *(lambda s=s: s.run(None, {"x": q}) for s in whole)]


def few_bits(depth: int, columns: int, rows: int) -> list[tuple[str, Callable[[], Calls]]]:
    """Ours: linear layers of that size by kinds of weights; what a call takes is uint8 codes."""
    rescaling = Rescaling(structs.REAL, structs.F32, factor=np.full(columns, 1e-3, f32))
    x, y = codes(rows, depth), aligned((rows, columns), f32)
    made: list[tuple[str, Callable[[], Calls]]] = []

    def packed(bits: int, group: int, values: np.ndarray) -> Calls:
        factors = RNG.random((columns, depth // group)).astype(f32) if group < depth else None
        w = RNG.integers(0, 2**bits, (columns, depth)).astype(np.uint8)
        layer = FewBits(w, bits, values, group, factors, 128, None, rescaling)
        blob, held = layer.packed()
        return Calls([layer.struct(x, blob, held, y)], [layer, blob, held, x, y])

    def dense() -> Calls:
        weights = RNG.integers(-127, 128, (columns, 1, 1, depth)).astype(np.int8)
        layer = Layer(weights, None, rescaling, 128)
        call = layer.struct((1, 1, rows, depth), beyond=structs.BEYOND)
        blob = pack(call)
        call.x, call.y = address(x), address(y)
        return Calls([call], [layer, x, y, blob])

    def pruned() -> Calls:
        values = RNG.integers(-127, 128, 31)
        weights = np.where(RNG.random((columns, depth)) < 0.08, RNG.choice(values, (columns, depth)),
                           0).astype(np.int16)
        layer = Pruned(weights, 128, None, rescaling)
        held, start = layer.by_picks() if library.picks_bytes() else layer.by_places(), layer.start()
        return Calls([layer.struct(x, held, start, y)], [layer, held, start, x, y])

    def planes(w_bits: int, x_bits: int) -> Calls:
        w = RNG.integers(0, 2**w_bits, (columns, 1, 1, depth)).astype(np.uint8)
        read = Few(x_bits, -1, 2) if x_bits == 1 else Few(2, 0, 1)
        layer = Planes(w, Few(w_bits, -1, 2 if w_bits == 1 else 1), read, None, rescaling)
        held = layer.packed()
        call, q = layer.struct((1, 1, rows, depth), held), codes(rows, depth)
        q[...] &= 2**x_bits - 1
        call.x, call.y = address(q), address(y)
        return Calls([call], [layer, held, q, y])

    whole = np.arange(16, dtype=np.int8) - 8
    made += [("int8", dense), ("int4 g128", lambda: packed(4, 128, whole)), ("int4 channel", lambda: packed(4, depth,
                                                                                                            whole)),
             ("4-bit codebook", lambda: packed(4, depth, RNG.integers(-127, 128, 16).astype(np.int8))),
             ("int2 g128", lambda: packed(2, 128, np.arange(4, dtype=np.int8) - 2)),
             ("ternary", lambda: packed(2, depth, np.array([-1, 0, 1, 0], np.int8))),
             ("binary weights", lambda: packed(1, depth, np.array([-1, 1], np.int8))),
             ("8 % shared", pruned), ("w1a1 planes", lambda: planes(1, 1)), ("w1a2 planes", lambda: planes(1, 2)),
             ("w2a2 planes", lambda: planes(2, 2))]
    return made


def weight_only_peer(depth: int, columns: int, rows: int) -> Call:
    """ONNX Runtime's MatMulNBits, 4 bits in blocks of 128, activations in int8 (level 4)."""
    data = RNG.integers(0, 256, (columns, depth // 128, 64)).astype(np.uint8)
    scales = RNG.random(columns * (depth // 128)).astype(f32)
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=depth, N=columns, bits=4,
                            block_size=128, accuracy_level=4)
    peer = session([node], {"x": (TensorProto.FLOAT, [rows, depth])}, TensorProto.FLOAT, {"w": data, "s": scales})
    x = RNG.normal(size=(rows, depth)).astype(f32)
    return lambda: peer.run(None, {"x": x})


def elementwise() -> list[tuple[str, int, Callable[[], Calls], Call]]:
    """(name, numbers, ours, float peer in ONNX Runtime)."""
    count, rows, length = 64 * 112 * 112, 197 * 3, 197

    def unary(name: str, shape: list[int], more: int = 0, **attributes: Any) -> Call:
        constants = {"g": np.ones(shape[-1], f32), "b": np.ones(shape[-1], f32)} if more else {}
        node = helper.make_node(name, ["x", *constants], ["y"], **attributes)
        peer = session([node], {"x": (TensorProto.FLOAT, shape)}, TensorProto.FLOAT, constants)
        x = RNG.normal(size=shape).astype(f32)
        return lambda: peer.run(None, {"x": x})

    def table() -> Calls:
        x, y, entries = codes(count), aligned(count), codes(1, 256)
        return Calls([table_struct(x, entries, y)], [x, y, entries])

    def softmax() -> Calls:
        powers = np.append(np.rint(np.exp(-np.arange(256) * 0.05) * 2.0**20), 0).astype(np.int32)
        made, x, y = Exponentials(powers, 1 / 256, 0, 0, 255), codes(rows, length), aligned((rows, length))
        return Calls([made.struct(x, None, y)], [made, x, y])

    def norm() -> Calls:
        one = np.ones((1, 192), f32)
        made, x, y = Normal(one, one, 1.0, 0.02, 128, 0, 255), codes(197, 192), aligned((197, 192))
        return Calls([made.struct(x, y)], [made, x, y])

    return [("table", count, table, unary("Sigmoid", [count])), ("softmax 197", rows * length, softmax,
                                                                unary("Softmax", [rows, length], axis=-1)),
            ("layer norm 192", 197 * 192, norm, unary("LayerNormalization", [197, 192], 1))]


def main(only: Annotated[str, typer.Option(help="conv, linear or elementwise")] = "",
         repeats: Annotated[int, typer.Option(help="of each candidate")] = 31) -> None:
    """Prints a table of each kind."""
    console, levels = Console(width=150), library.levels()[2:]
    if only in ("", "conv"):
        table = Table("convolution", "ORT fp32 µs", "ORT int8", "ORT int8 exact", *levels,
                      title="times ONNX Runtime fp32 (GOP/s)")
        for c in CONVOLUTIONS:
            found = medians([*conv_peers(c), *(at(level, lambda c=c: conv_calls(c)) for level in levels)], repeats)
            out = -(-c.size // c.stride)
            work = 2 * out * out * c.outs * c.channels // c.groups * c.kernel**2
            table.add_row(c.name, f"{found[0]:.0f}", *(f"{found[0] / t:.2f}" for t in found[1:3]),
                          *(f"{found[0] / t:.2f} ({work / t / 1e3:.0f})" for t in found[3:]))
        console.print(table)
    if only in ("", "linear"):
        for depth, columns, rows in ((4096, 4096, 1), (1024, 1024, 32), (4096, 4096, 32), (4096, 4096, 256)):
            linear = torch.nn.Linear(depth, columns, bias=False).requires_grad_(False)
            x = torch.randn(rows, depth)
            kinds = few_bits(depth, columns, rows)
            table = Table("weights", *levels, title=f"linear layer {rows}×{depth}→{columns}: times torch fp32")
            few = repeats if rows == 1 else max(repeats // 6, 3)
            peer = medians([lambda x=x, f=linear: f(x), weight_only_peer(depth, columns, rows)], few)
            table.add_row("MatMulNBits 4 bits", *(f"{peer[0] / peer[1]:.1f}" for _ in levels))
            for name, make in kinds:
                found = medians([lambda x=x, f=linear: f(x), *(at(level, make) for level in levels)], few)
                table.add_row(name, *(f"{found[0] / t:.1f}  {t:.0f} µs" for t in found[1:]))
            console.print(table)
    if only in ("", "elementwise"):
        table = Table("what", "ORT float ns", *levels, title="ns a number")
        for name, count, make, peer in elementwise():
            found = medians([peer, *(at(level, make) for level in levels)], repeats)
            table.add_row(name, *(f"{t * 1e3 / count:.2f}" for t in found))
        console.print(table)
    console.print(str(this_machine()), highlight=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)

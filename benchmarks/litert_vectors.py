"""`python benchmarks/litert_vectors.py OUT.npz`: what LiteRT's reference kernels compute, for
tests/program/test_litert.py.

Needs numpy, flatbuffers and ai-edge-litert, and nothing of fewbits: the arrays are another program's word. Each case is
one operator on codes, in a model made with the interpreter's own schema. Images are stored channels first.
"""

import sys

import ai_edge_litert.schema_py_generated as tfl  # type: ignore[reportMissingImports]
import flatbuffers  # type: ignore[reportMissingImports]
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[reportMissingImports]

_TYPES = {"int8": tfl.TensorType.INT8, "int16": tfl.TensorType.INT16, "int32": tfl.TensorType.INT32,
          "int64": tfl.TensorType.INT64, "float32": tfl.TensorType.FLOAT32}
_VERSIONS = {"FULLY_CONNECTED": 7, "CONV_2D": 3, "QUANTIZE": 1}


class Model:
    """One operator under construction."""

    def __init__(self):
        self.tensors, self.buffers = [], [tfl.BufferT()]

    def tensor(self, shape, dtype, scale=None, zero=0, data=None):
        """Adds a tensor; returns its number."""
        made = tfl.TensorT()
        made.shape, made.type, made.name, made.buffer = list(shape), _TYPES[dtype], f"t{len(self.tensors)}", 0
        if scale is not None:
            scales = np.atleast_1d(np.float32(scale))
            made.quantization = tfl.QuantizationParametersT()
            made.quantization.scale = [float(s) for s in scales]
            made.quantization.zeroPoint = [int(zero)] * scales.size
            made.quantization.quantizedDimension = 0
        if data is not None:
            buffer = tfl.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            made.buffer = len(self.buffers) - 1
        self.tensors.append(made)
        return len(self.tensors) - 1

    def run(self, operator, reads, writes, options, given):
        """The operator's output codes. given: arrays by tensor number."""
        code, node, graph, model = tfl.OperatorCodeT(), tfl.OperatorT(), tfl.SubGraphT(), tfl.ModelT()
        code.builtinCode = getattr(tfl.BuiltinOperator, operator)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), _VERSIONS.get(operator, 2)
        node.opcodeIndex, node.inputs, node.outputs, node.builtinOptions = 0, reads, [writes], options
        node.builtinOptionsType = getattr(tfl.BuiltinOptions, type(options).__name__[:-1])
        graph.tensors, graph.inputs, graph.outputs, graph.operators = self.tensors, list(given), [writes], [node]
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        interpreter = Interpreter(model_content=bytes(builder.Output()),
                                  experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        interpreter.allocate_tensors()
        for detail, array in zip(interpreter.get_input_details(), given.values(), strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def options(kind, **fields):
    """The options of an operator; fused activation: none."""
    made = getattr(tfl, f"{kind}OptionsT")()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class Cases:
    """Draws cases of one activation type."""

    def __init__(self, rng, act):
        self.rng, self.act = rng, act
        self.wide = act == "int16"

    def grid(self):
        if self.wide:
            return np.float32(self.rng.uniform(1e-4, 1e-3)), 0
        return np.float32(self.rng.uniform(0.01, 0.1)), int(self.rng.integers(-100, 101))

    def codes(self, *shape):
        limits = np.iinfo(self.act)
        return self.rng.integers(limits.min, limits.max + 1, shape).astype(self.act)

    def weights(self, scale, *shape):
        w = self.rng.integers(-127, 128, shape).astype(np.int8)
        w_scale = self.rng.uniform(0.001, 0.02, shape[0]).astype(np.float32)
        bias = self.rng.integers(-3000, 3001, shape[0]).astype("int64" if self.wide else "int32")
        spread = float(scale) * float(w_scale.mean()) * 74 * (19000 if self.wide else 74) * np.prod(shape[1:]) ** 0.5
        return w, w_scale, bias, np.float32(spread / (9000 if self.wide else 40))

    def conv(self):
        (x_scale, x_zero), (_, y_zero) = self.grid(), self.grid()
        x = self.codes(2, 12, 12, 3)
        w, w_scale, bias, y_scale = self.weights(x_scale, 8, 3, 3, 3)
        m = Model()
        reads = [m.tensor(x.shape, self.act, x_scale, x_zero), m.tensor(w.shape, "int8", w_scale, 0, w),
                 m.tensor(bias.shape, str(bias.dtype), x_scale * w_scale, 0, bias)]
        y = m.run("CONV_2D", reads, m.tensor((2, 12, 12, 8), self.act, y_scale, y_zero),
                  options("Conv2D", padding=tfl.Padding.SAME, strideH=1, strideW=1, dilationHFactor=1,
                          dilationWFactor=1), {0: x})
        return {"a": _first(x), "a_scale": x_scale, "a_zero": x_zero, "w": _first(w), "w_scale": w_scale, "bias": bias,
                "y": _first(y), "y_scale": y_scale, "y_zero": y_zero}

    def linear(self):
        (x_scale, x_zero), (_, y_zero) = self.grid(), self.grid()
        x = self.codes(200, 20)
        w, w_scale, bias, y_scale = self.weights(x_scale, 16, 20)
        m = Model()
        reads = [m.tensor(x.shape, self.act, x_scale, x_zero), m.tensor(w.shape, "int8", w_scale, 0, w),
                 m.tensor(bias.shape, str(bias.dtype), x_scale * w_scale, 0, bias)]
        y = m.run("FULLY_CONNECTED", reads, m.tensor((200, 16), self.act, y_scale, y_zero),
                  options("FullyConnected"), {0: x})
        return {"a": x, "a_scale": x_scale, "a_zero": x_zero, "w": w, "w_scale": w_scale, "bias": bias, "y": y,
                "y_scale": y_scale, "y_zero": y_zero}

    def pair(self, operator, kind, a_shape, b_shape, y_shape, y_scale=None, **fields):
        (a_scale, a_zero), (b_scale, b_zero), (own, y_zero) = self.grid(), self.grid(), self.grid()
        y_scale = own if y_scale is None else np.float32(a_scale * b_scale * y_scale)
        a, b, m = self.codes(*a_shape), self.codes(*b_shape), Model()
        reads = [m.tensor(a.shape, self.act, a_scale, a_zero), m.tensor(b.shape, self.act, b_scale, b_zero)]
        y = m.run(operator, reads, m.tensor(y_shape, self.act, y_scale, y_zero), options(kind, **fields), {0: a, 1: b})
        return {"a": a, "a_scale": a_scale, "a_zero": a_zero, "b": b, "b_scale": b_scale, "b_zero": b_zero, "y": y,
                "y_scale": y_scale, "y_zero": y_zero}

    def add(self):
        return self.pair("ADD", "Add", (1, 50, 50), (1, 50, 50), (1, 50, 50), potScaleInt16=False)

    def subtract(self):
        return self.pair("SUB", "Sub", (1, 50, 50), (1, 1, 50), (1, 50, 50), potScaleInt16=False)

    def multiply(self):
        return self.pair("MUL", "Mul", (1, 50, 50), (1, 50, 50), (1, 50, 50), 16000 if self.wide else 60)

    def matmul(self):
        return self.pair("BATCH_MATMUL", "BatchMatMul", (4, 20, 16), (4, 16, 30), (4, 20, 30),
                         19000**2 * 4 / 9000 if self.wide else 74**2 * 4 / 40)

    def single(self, operator, made, a, y_shape, coarser, extra=None):
        """coarser: how many times the output's step is the input's; 1 for its very grid."""
        (a_scale, a_zero), (_, y_zero), m = self.grid(), self.grid(), Model()
        y_scale, y_zero = np.float32(a_scale * coarser), a_zero if coarser == 1 else y_zero
        reads = [m.tensor(a.shape, self.act, a_scale, a_zero)]
        if extra is not None:
            reads.append(m.tensor(extra.shape, "int32", data=extra))
        y = m.run(operator, reads, m.tensor(y_shape, self.act, y_scale, y_zero), made, {0: a})
        return {"a": a, "a_scale": a_scale, "a_zero": a_zero, "y": y, "y_scale": y_scale, "y_zero": y_zero}

    def requantize(self):
        return self.single("QUANTIZE", options("Quantize"), self.codes(1, 3000), (1, 3000), 3.3)

    def average_pool(self):
        made = options("Pool2D", padding=tfl.Padding.SAME, strideH=2, strideW=2, filterHeight=3, filterWidth=3)
        case = self.single("AVERAGE_POOL_2D", made, self.codes(2, 9, 9, 6), (2, 5, 5, 6), 1)
        return case | {"a": _first(case["a"]), "y": _first(case["y"])}

    def mean(self):
        case = self.single("MEAN", options("Reducer", keepDims=True), self.codes(16, 7, 6, 12), (16, 1, 1, 12), 0.8,
                           extra=np.array([1, 2], np.int32))
        return case | {"a": _first(case["a"]), "y": _first(case["y"])}

    def quantize(self):
        y_scale, m = np.float32(2.0**-4), Model()
        ties = (np.arange(-150, 150) + 0.5) * y_scale
        a = np.concatenate([ties, self.rng.normal(0, 4, 700)]).astype(np.float32)[None]
        y = m.run("QUANTIZE", [m.tensor(a.shape, "float32")],
                  m.tensor(a.shape, self.act, y_scale, 0 if self.wide else 3), options("Quantize"), {0: a})
        return {"a": a, "y": y, "y_scale": y_scale, "y_zero": 0 if self.wide else 3}


KINDS = ("conv", "linear", "matmul", "add", "subtract", "multiply", "requantize", "average_pool", "mean", "quantize")


def _first(images):
    """Channels last to channels first."""
    return np.moveaxis(images, -1, 1)


def main(out):
    rng = np.random.default_rng(3)
    arrays = {}
    for act in ("int8", "int16"):
        cases = Cases(rng, act)
        for kind in KINDS:
            arrays |= {f"{act}/{kind}/{name}": np.asarray(value) for name, value in getattr(cases, kind)().items()}
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])

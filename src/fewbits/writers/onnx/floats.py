"""Float islands as ONNX: each call as the float operators it is. A call without an ONNX form is refused by name."""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from fewbits.errors import VerificationError
from fewbits.program import ops as op
from fewbits.program.ops import Argument, FloatCall, Read
from fewbits.program.requantize import NO_DIVISOR
from fewbits.program.unary import BY_WORD, UNARY
from fewbits.program.windows import margins_of
from fewbits.writers.onnx.builder import OnnxBuilder
from fewbits.writers.onnx.steps import FormTable, OnnxForms, rows_back

_BOOL, _INT32 = 9, 6  # of TensorProto

Emit = Callable[[OnnxBuilder, FloatCall], None]


def _float_call(b: OnnxBuilder, node: FloatCall) -> None:
    """Raises VerificationError where ONNX has no such call."""
    emit = _CALLS.get(_words(node))
    if emit is None:
        raise _refused(node)
    emit(b, node)


def _refused(node: FloatCall, how: str = "") -> VerificationError:
    what = f"{_words(node)} {how}".strip()
    return VerificationError(f"{node.name!r} is {what} in float, which has no ONNX form here: give it a format, so "
                             "that it becomes integers")


def _float_constant(b: OnnxBuilder, node: op.FloatConstant) -> None:
    b.node("Identity", [b.constant(f"{node.name}.data", node.data)], node.name)


def _words(node: FloatCall) -> str:
    """`conv2d` of `aten.conv2d.default`."""
    return node.call.removeprefix("aten.").split(".")[0]


def _value(argument: Argument) -> str:
    """Name of the value an argument reads; '' for none, as ONNX has it."""
    assert argument is None or isinstance(argument, Read), "the operator table takes a tensor here"
    return "" if argument is None else argument.value


def _number(b: OnnxBuilder, node: FloatCall, argument: str) -> str:
    """A value, or a number as a constant."""
    given = node[argument]
    if isinstance(given, Read):
        return given.value
    assert isinstance(given, int | float), "operands are values or numbers"
    return b.constant(f"{node.name}.{argument}", np.array(given, np.float32))


def _ints(argument: Argument, count: int) -> list[int]:
    """ATen's list of sizes, one for every axis or one for all."""
    values = list(argument) if isinstance(argument, tuple) else [argument]
    sizes = [value for value in values if isinstance(value, int)]
    return sizes * count if len(sizes) == 1 else sizes


def _rank(b: OnnxBuilder, argument: Argument) -> int:
    return len(b.program.values[_value(argument)].shape)


def _conv(b: OnnxBuilder, node: FloatCall) -> None:
    kernel = [size or 0 for size in b.program.values[_value(node["weight"])].shape[2:]]
    dilation, stride = (_ints(node[name], len(kernel)) for name in ("dilation", "stride"))
    pads = [size for sides in zip(*margins_of(node["padding"], kernel, dilation), strict=True) for size in sides]
    b.node("Conv", _without_trailing([_value(node[name]) for name in ("input", "weight", "bias")]), node.name,
           strides=stride, pads=pads, dilations=dilation, group=node["groups"])


def _without_trailing(names: list[str]) -> list[str]:
    while not names[-1]:
        names.pop()
    return names


def _linear(b: OnnxBuilder, node: FloatCall) -> None:
    """Gemm over rows, for any rank: of a MatMul with decoded weights ONNX Runtime would make one that quantizes its
    activations to 8 bits."""
    source, weight, bias = (_value(node[name]) for name in ("input", "weight", "bias"))
    shape, given = b.program.values[node.name].shape, source
    if len(shape) != 2:
        width = b.program.values[weight].shape[1] or 0
        rows = b.constant(f"{node.name}.rows.shape", np.array([-1, width], np.int64))
        source = b.node("Reshape", [source, rows], b.name(node.name, "rows"))
    out = node.name if len(shape) == 2 else b.name(node.name, "product")
    b.node("Gemm", _without_trailing([source, weight, bias]), out, transB=1)
    if len(shape) != 2:
        rows_back(b, out, given, node.name, node.name)


def _pair(operator: str) -> Emit:
    def emit(b: OnnxBuilder, node: FloatCall) -> None:
        if node.arguments.get("alpha", 1) != 1:
            raise _refused(node, f"with alpha = {node['alpha']}")
        second = next(name for name in ("other", "mat2") if name in node.arguments)
        b.node(operator, [_number(b, node, "self"), _number(b, node, second)], node.name)

    return emit


def _quotient(b: OnnxBuilder, node: FloatCall) -> None:
    first, second = _value(node["first"]), _value(node["second"])
    zero, instead = (b.constant(f"{node.name}.{name}", np.array(value, np.float32))
                     for name, value in (("zero", 0.0), ("instead", NO_DIVISOR)))
    none = b.node("Equal", [second, zero], b.name(node.name, "none"))
    divisor = b.node("Where", [none, instead, second], b.name(node.name, "divisor"))
    b.node("Div", [first, divisor], node.name)


def _unary(b: OnnxBuilder, node: FloatCall) -> None:
    source, *others = node.arguments.items()
    row = BY_WORD[_words(node)]
    b.unary(row.form(row.arguments(dict(others))), _value(source[1]), node.name)


def _along(operator: str) -> Emit:
    def emit(b: OnnxBuilder, node: FloatCall) -> None:
        b.node(operator, [_value(node["self"])], node.name, axis=node["dim"])

    return emit


def _relu(b: OnnxBuilder, node: FloatCall) -> None:
    b.node("Relu", [_value(node["self"])], node.name)


def _prelu(b: OnnxBuilder, node: FloatCall) -> None:
    shape = b.constant(f"{node.name}.shape", np.array([-1, *[1] * (_rank(b, node["self"]) - 2)], np.int64))
    slopes = b.node("Reshape", [_value(node["weight"]), shape], b.name(node.name, "slopes"))
    b.node("PRelu", [_value(node["self"]), slopes], node.name)


def _masked_softmax(b: OnnxBuilder, node: FloatCall) -> None:
    x = b.node("Mul", [_value(node["x"]), _number(b, node, "factor")], b.name(node.name, "scaled"))
    if node["mask"] is None:
        b.node("Softmax", [x], node.name, axis=-1)
        return
    seen = b.node("Cast", [_value(node["mask"])], b.name(node.name, "seen"), to=_BOOL)
    lowest = b.constant(f"{node.name}.lowest", np.array(-np.inf, np.float32))
    if "empty" not in node.arguments:  # no row hides everything
        x = b.node("Where", [seen, x, lowest], b.name(node.name, "masked"))
        b.node("Softmax", [x], node.name, axis=-1)
        return
    axis, zero = (b.constant(f"{node.name}.{name}", value) for name, value in (
        ("axis", np.array([-1], np.int64)), ("nothing", np.array(0, np.float32))))
    number = b.node("Cast", [seen], b.name(node.name, "number"), to=_INT32)
    largest = b.node("ReduceMax", [number, axis], b.name(node.name, "any"), keepdims=1)
    some = b.node("Cast", [largest], b.name(node.name, "some"), to=_BOOL)
    if node["empty"] == "uniform":
        x = b.node("Where", [some, x, zero], b.name(node.name, "even"))
    elif node["low"]:
        low = b.constant(f"{node.name}.low", np.array(node["low"], np.float32))
        lower = b.node("Add", [x, low], b.name(node.name, "lower"))
        x = b.node("Where", [some, x, b.node("Sub", [lower, low], b.name(node.name, "rounded"))],
                   b.name(node.name, "kept"))
    shown = b.node("Or", [seen, b.node("Not", [some], b.name(node.name, "none"))], b.name(node.name, "shown"))
    x = b.node("Where", [shown, x, lowest], b.name(node.name, "masked"))
    if node["empty"] == "zero":
        shares = b.node("Softmax", [x], b.name(node.name, "shares"), axis=-1)
        b.node("Where", [some, shares, zero], node.name)
    else:
        b.node("Softmax", [x], node.name, axis=-1)


def _choose(b: OnnxBuilder, node: FloatCall) -> None:
    condition = b.node("Cast", [_value(node["condition"])], b.name(node.name, "condition"), to=_BOOL)
    b.node("Where", [condition, _number(b, node, "self"), _number(b, node, "other")], node.name)


def _rms_norm(b: OnnxBuilder, node: FloatCall) -> None:
    def step(operator: str, inputs: list[str]) -> str:
        return b.node(operator, inputs, b.name(node.name, operator.lower()))

    x, sizes = _value(node["input"]), _ints(node["normalized_shape"], 1)
    axes = b.constant(f"{node.name}.axes", np.arange(-len(sizes), 0))
    mean = step("ReduceMean", [step("Mul", [x, x]), axes])
    epsilon = b.constant(f"{node.name}.epsilon", np.array(node["eps"], np.float32))
    deviation = step("Sqrt", [step("Add", [mean, epsilon])])
    if node["weight"] is None:
        b.node("Div", [x, deviation], node.name)
    else:
        b.node("Mul", [step("Div", [x, deviation]), _value(node["weight"])], node.name)


def _layer_norm(b: OnnxBuilder, node: FloatCall) -> None:
    sizes = _ints(node["normalized_shape"], 1)
    gain = _value(node["weight"]) or b.constant(f"{node.name}.gain", np.ones(sizes, np.float32))
    inputs = _without_trailing([_value(node["input"]), gain, _value(node["bias"])])
    b.node("LayerNormalization", inputs, node.name, axis=-len(sizes), epsilon=node["eps"])


def _group_norm(b: OnnxBuilder, node: FloatCall) -> None:
    """Instance normalisation of the groups as rows, then the channels' gains and shifts."""
    source, groups = _value(node["input"]), node["num_groups"]
    shape = b.program.values[source].shape
    assert isinstance(groups, int), "the operator table takes a number here"
    rows, back = (b.constant(f"{node.name}.{name}", np.array([0, *(size or -1 for size in sizes)], np.int64))
                  for name, sizes in (("rows", (groups, None)), ("shape", shape[1:])))
    one, zero = (b.constant(f"{node.name}.{name}", np.full(groups, value, np.float32))
                 for name, value in (("one", 1.0), ("zero", 0.0)))
    x = b.node("Reshape", [source, rows], b.name(node.name, "grouped"))
    x = b.node("InstanceNormalization", [x, one, zero], b.name(node.name, "normal"), epsilon=node["eps"])
    given = (("Mul", node["weight"]), ("Add", node["bias"]))
    parts = [(operator, argument) for operator, argument in given if argument is not None]
    x = b.node("Reshape", [x, back], b.name(node.name, "restored") if parts else node.name)
    for number, (operator, argument) in enumerate(parts, 1):
        column = b.constant(f"{node.name}.{operator}.shape", np.array([-1, *[1] * (len(shape) - 2)], np.int64))
        each = b.node("Reshape", [_value(argument), column], b.name(node.name, f"{operator}.each"))
        x = b.node(operator, [x, each], node.name if number == len(parts) else b.name(node.name, operator))


def _batch_norm(b: OnnxBuilder, node: FloatCall) -> None:
    channels = b.program.values[_value(node["running_mean"])].shape[0] or 0
    gain = _value(node["weight"]) or b.constant(f"{node.name}.gain", np.ones(channels, np.float32))
    shift = _value(node["bias"]) or b.constant(f"{node.name}.shift", np.zeros(channels, np.float32))
    b.node("BatchNormalization", [_value(node["input"]), gain, shift, _value(node["running_mean"]),
                                  _value(node["running_var"])], node.name, epsilon=node["eps"])


def _embedding(b: OnnxBuilder, node: FloatCall) -> None:
    b.node("Gather", [_value(node["weight"]), _value(node["indices"])], node.name, axis=0)


def _concat(b: OnnxBuilder, node: FloatCall) -> None:
    tensors = node["tensors"]
    assert isinstance(tensors, tuple), "a concatenation has a list of tensors"
    names = [_value(item) for item in tensors]
    if _words(node) == "join":
        names = b.for_every_image(node.name, names)
    b.node("Concat", names, node.name, axis=node["dim"])


def _average_pool(b: OnnxBuilder, node: FloatCall) -> None:
    axes = 3 if _words(node) == "avg_pool3d" else 2
    kernel = _ints(node["kernel_size"], axes)
    divisor = node["divisor_override"]
    if divisor is not None and node["ceil_mode"]:
        raise _refused(node, "with a divisor of its own and ceil_mode")
    pooled = node.name if divisor is None else b.name(node.name, "pooled")
    b.node("AveragePool", [_value(node["self"])], pooled, kernel_shape=kernel,
           strides=_ints(node["stride"], axes) or kernel, pads=2 * _ints(node["padding"], axes),
           ceil_mode=int(bool(node["ceil_mode"])),
           count_include_pad=int(bool(node["count_include_pad"]) or divisor is not None))
    if isinstance(divisor, int):
        factor = b.constant(f"{node.name}.factor", np.array(prod(kernel) / divisor, np.float32))
        b.node("Mul", [pooled, factor], node.name)


def _adaptive_pool(b: OnnxBuilder, node: FloatCall) -> None:
    """To one number per channel a pool over all; else a product with the shares that each position has in each mean."""
    x, axes = _value(node["self"]), 3 if _words(node) == "adaptive_avg_pool3d" else 2
    shape, target = b.program.values[x].shape, _ints(node["output_size"], axes)
    if set(target) == {1}:
        b.node("GlobalAveragePool", [x], node.name)
        return
    sizes = [size or 0 for size in shape[-axes:]]
    shares = np.ones((1, 1))
    for size, wanted in zip(sizes, target, strict=True):
        shares = np.kron(shares, _shares(size, wanted))
    flat, back = (b.constant(f"{node.name}.{name}", np.array([0, 0, *rest], np.int64))
                  for name, rest in (("flat", [prod(sizes)]), ("shape", target)))
    rows = b.node("Reshape", [x, flat], b.name(node.name, "rows"))
    table = b.constant(f"{node.name}.shares", shares.astype(np.float32))
    b.node("Reshape", [b.node("MatMul", [rows, table], b.name(node.name, "means")), back], node.name)


def _shares(size: int, wanted: int) -> np.ndarray:
    """[size, wanted]: of the positions from ⌊i · size / wanted⌋ to ⌈(i + 1) · size / wanted⌉ in mean i."""
    shares = np.zeros((size, wanted))
    for i in range(wanted):
        first, last = i * size // wanted, -(-(i + 1) * size // wanted)
        shares[first:last, i] = 1 / (last - first)
    return shares


def _mean(b: OnnxBuilder, node: FloatCall) -> None:
    if not node["dim"]:
        raise _refused(node, "over all axes")
    axes = b.constant(f"{node.name}.axes", np.array(_ints(node["dim"], 1), np.int64))
    b.node("ReduceMean", [_value(node["self"]), axes], node.name, keepdims=int(bool(node["keepdim"])))


def _clip(low: str | float | None, high: str | float | None) -> Emit:
    """Bounds: an argument's name, a number, or None for none."""
    def emit(b: OnnxBuilder, node: FloatCall) -> None:
        names = []
        for side, bound in (("low", low), ("high", high)):
            value = node[bound] if isinstance(bound, str) else bound
            names.append("" if value is None else b.constant(f"{node.name}.{side}", np.array(value, np.float32)))
        b.node("Clip", _without_trailing([_value(node["self"]), *names]), node.name)

    return emit


_CALLS: Mapping[str, Emit] = {row.word: _unary for row in UNARY} | {
    "conv1d": _conv, "conv2d": _conv, "conv3d": _conv, "linear": _linear, "matmul": _pair("MatMul"),
    "bmm": _pair("MatMul"), "add": _pair("Add"), "sub": _pair("Sub"), "mul": _pair("Mul"), "div": _pair("Div"),
    "quotient": _quotient, "maximum": _pair("Max"), "minimum": _pair("Min"), "prelu": _prelu,
    "softmax": _along("Softmax"), "masked_softmax": _masked_softmax, "log_softmax": _along("LogSoftmax"),
    "layer_norm": _layer_norm, "group_norm": _group_norm, "batch_norm": _batch_norm, "embedding": _embedding,
    "cat": _concat, "concat": _concat, "join": _concat, "avg_pool2d": _average_pool, "avg_pool3d": _average_pool,
    "adaptive_avg_pool2d": _adaptive_pool, "adaptive_avg_pool3d": _adaptive_pool, "mean": _mean, "relu": _relu,
    "relu6": _clip(0.0, 6.0), "hardtanh": _clip("min_val", "max_val"), "clamp": _clip("min", "max"),
    "clamp_min": _clip("min", None), "clamp_max": _clip(None, "max"), "where": _choose, "rms_norm": _rms_norm,
}
"""By the call's name without its overload."""

FORMS: FormTable = {
    op.FloatConstant: OnnxForms(_float_constant, _float_constant, _float_constant),
    op.FloatCall: OnnxForms(_float_call, _float_call, _float_call),
}

"""The lowering rules: what each operator of the graph becomes in the program."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fewbits.errors import LoweringError
from fewbits.graph.batch_norm import scale_and_shift
from fewbits.graph.graph import Node, Shape
from fewbits.graph.operators import mean_axes
from fewbits.lower.context import Context, integers
from fewbits.lower.threshold import of_numbers, of_sums
from fewbits.numerics.encoding import Quantized
from fewbits.numerics.formats import Int
from fewbits.program import nodes as op
from fewbits.program.accumulator import dot_bound, interval
from fewbits.program.nodes import Margins, Sizes
from fewbits.quant.batch_norm import channel_axis
from fewbits.quant.fake_quantize import FakeQuantize

Rule = Callable[[Context, Node], None]
WHOLE = 2**31  # slices that end beyond this run to the end


def _sizes(value: Any, rank: int) -> Sizes:
    """ATen's lists of sizes, one for every axis or one for all."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * rank if len(values) == 1 else values)


def _margins(padding: Any, kernel: Sizes, dilation: Sizes) -> Margins:
    """"same" pads by dilation · (kernel − 1) in all, the odd one behind."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    sizes = _sizes(0 if padding == "valid" else padding, len(kernel))
    return tuple((size, size) for size in sizes)


def _conv(context: Context, node: Node) -> None:
    kernel = context.array(node["weight"].name).shape[2:]
    dilation, stride = (_sizes(node[name], len(kernel)) for name in ("dilation", "stride"))
    margins, source = _margins(node["padding"], kernel, dilation), context.read(node["input"])
    _dot(context, node, lambda name, weight, bias, low, high: op.Conv(
        name, source, weight, bias, stride, margins, dilation, node["groups"], low, high))


def _linear(context: Context, node: Node) -> None:
    source = context.read(node["input"])
    _dot(context, node, lambda name, weight, bias, low, high: op.Linear(name, source, weight, bias, low, high))


def _dot(context: Context, node: Node,
         make: Callable[[str, Quantized, np.ndarray | None, int, int], op.Conv | op.Linear]) -> None:
    """A dot product with its bias and batch norm, and what brings its sums to codes."""
    assert node.shape is not None, "a dot product returns one tensor"
    quantizer, sums = context.uneven(node), context.profile.accumulator
    if quantizer is not None:
        weight, _ = context.operands(node, unscaled=True)
        name = context.emit(make(f"{node.name}.sums", weight, None, sums.low, sums.high), node.shape,
                            context.sums(node, weight))
        context.names[node.name] = _sums_to_levels(context, node, name, weight, quantizer)
        return
    weight, bias = context.operands(node)
    if context.leaves_sums(node):
        name, encoding = context.simulation.plan.grid(node.name), context.sums(node, weight)
        low, high = sums.low, sums.high
    else:
        y = context.result(node)
        name, encoding, low, high = y.name, y.encoding, y.low, y.high
    context.names[node.name] = context.emit(make(name, weight, bias, low, high), node.shape, encoding)


def _sums_to_levels(context: Context, node: Node, name: str, weight: Quantized, quantizer: FakeQuantize) -> str:
    """Sums to the codes of a table or float, by comparison."""
    assert node.shape is not None and not isinstance(quantizer.spec.format, Int)
    site, encoding = context.simulation.plan.grid(node.name), context.uneven_encoding(quantizer)
    gain, offset = context.gain_and_offset(node)
    bound = dot_bound(weight, None, *interval(context.encoding(context.read(node["input"]))))
    thresholds, direction = of_sums(site, quantizer.spec.format, integers(quantizer), float(quantizer.encoding.scale),
                                    gain, offset, context.clamped(site), (bound.low, bound.high))
    if (thresholds == thresholds[:1]).all() and (direction == direction[0]).all():
        thresholds, direction = thresholds[:1], direction[:1]
    return context.emit(op.Threshold(site, name, thresholds, direction, context.level_codes(quantizer),
                                     channel_axis(node)), node.shape, encoding)


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


def _add(context: Context, node: Node) -> None:
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(op.Add(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def _sub(context: Context, node: Node) -> None:
    if isinstance(node["other"], int | float):
        return _table(context, node)
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(op.Add(y.name, first, second, y.low, y.high, subtract=True), y.shape,
                                            y.encoding)


def _mul(context: Context, node: Node) -> None:
    if isinstance(node["other"], int | float):
        return _table(context, node)
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(op.Mul(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def _matmul(context: Context, node: Node) -> None:
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node.arguments.get("other", node.arguments.get("mat2")))
    context.names[node.name] = context.emit(op.MatMul(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def _table(context: Context, node: Node) -> None:
    """The ATen call itself, in float64, on every number the input's codes stand for."""
    name = next(iter(node.arguments))
    reals = context.every_real(context.read(node[name]))
    by_position = [torch.from_numpy(reals), *list(node.arguments.values())[1:node.positional]]
    by_name = dict(list(node.arguments.items())[node.positional:])
    _tabulate(context, node, context.read(node[name]), node.target(*by_position, **by_name).numpy().reshape(1, -1))


def _batch_norm(context: Context, node: Node) -> None:
    """Part of the dot product before it, or a function of one number per channel."""
    if context.is_inside(node):
        return _unchanged(context, node)
    scale, shift = (part.cpu().numpy()[:, None] for part in scale_and_shift(context.simulation.model, node))
    source = context.read(node["input"])
    _tabulate(context, node, source, scale * context.every_real(source) + shift)


def _prelu(context: Context, node: Node) -> None:
    slopes = context.array(node["weight"].name).astype(np.float64).reshape(-1, 1)
    source = context.read(node["self"])
    reals = context.every_real(source)
    _tabulate(context, node, source, np.where(reals >= 0, reals, slopes * reals))


def _tabulate(context: Context, node: Node, source: str, results: np.ndarray) -> None:
    """results: float64 [rows, codes], the function's values in code order."""
    assert node.shape is not None, "a function returns one tensor"
    site, quantizer = context.simulation.plan.grid(node.name), context.uneven(node)
    if quantizer is not None:
        encoding = context.uneven_encoding(quantizer)
        codes = quantizer.integers(results.clip(*context.clamped(site))).codes
    else:
        y = context.result(node)
        encoding, codes = y.encoding, y.encoding.encode(results).codes.clip(y.low, y.high)
    entries = np.zeros((len(results), max(256, results.shape[1])), encoding.format.dtype)
    entries[:, :results.shape[1]] = codes
    arguments = [str(value) for value in node.arguments.values() if isinstance(value, int | float | str)]
    words = str(getattr(node.target, "__name__", node.target)).split(".")[0]
    if words in ("mul", "div", "sub", "rsub", "pow"):
        words = f"{words} {arguments[0]}"
    context.names[node.name] = context.emit(op.Table(site, source, entries, words), node.shape, encoding)


def _softmax(context: Context, node: Node) -> None:
    _softmax_of(context, node, context.read(node["self"]), None, 1.0)


def _masked_softmax(context: Context, node: Node) -> None:
    mask = None if node["mask"] is None else context.array(node["mask"].name).astype(np.uint8)
    _softmax_of(context, node, context.read(node["x"]), mask, node["factor"])


def _softmax_of(context: Context, node: Node, source: str, mask: np.ndarray | None, factor: float) -> None:
    y = context.result(node)
    context.names[node.name] = context.emit(op.Softmax(y.name, source, mask, factor, y.low, y.high), y.shape,
                                            y.encoding)


def _layer_norm(context: Context, node: Node) -> None:
    y, length = context.result(node), node["normalized_shape"][0]
    gain, shift = (np.full(length, default, np.float32) if node[name] is None else context.array(node[name].name)
                   for name, default in (("weight", 1.0), ("bias", 0.0)))
    context.names[node.name] = context.emit(
        op.LayerNorm(y.name, context.read(node["input"]), gain, shift, node["eps"], y.low, y.high), y.shape,
        y.encoding)


def _embedding(context: Context, node: Node) -> None:
    y = context.result(node)
    table = y.encoding.encode(context.array(node["weight"].name))
    context.names[node.name] = context.emit(op.Embedding(y.name, node["indices"].name, table), y.shape, y.encoding)


def _roll(context: Context, node: Node) -> None:
    source, shape = context.read(node["self"]), context.shape(node["self"])
    for axis, shift in zip(node["dims"], node["shifts"], strict=True):
        size = shape[axis]
        assert size is not None, "the operator table refuses the batch"
        order = tuple((i - shift) % size for i in range(size))
        name = node.name if axis == node["dims"][-1] else f"{node.name}.axis{axis}"
        source = _moved(context, op.Pick(name, source, axis % len(shape), order), shape)
    context.names[node.name] = source


def _channel_shuffle(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    channels = context.values[source].shape[1]
    assert channels is not None, "only the batch is unknown"
    order = np.arange(channels).reshape(node["groups"], -1).T.reshape(-1)
    _pass(context, node, op.Pick(node.name, source, 1, tuple(int(i) for i in order)))


def _pixel_shuffle(context: Context, node: Node) -> None:
    assert node.shape is not None, "a shuffle returns one tensor"
    source, factor = context.read(node["self"]), node["upscale_factor"]
    _, channels, height, width = context.values[source].shape
    assert channels is not None, "only the batch is unknown"
    split = (None, channels // factor**2, factor, factor, height, width)
    apart = _moved(context, op.Reshape(f"{node.name}.apart", source, _minus_one(split)), split)
    order = (0, 1, 4, 2, 5, 3)
    turned = _moved(context, op.Transpose(f"{node.name}.turned", apart, order), tuple(split[axis] for axis in order))
    _pass(context, node, op.Reshape(node.name, turned, _minus_one(node.shape)))


def _insert_zeros(context: Context, node: Node) -> None:
    """[.., H, W] → [.., H, 1, W, 1] → padded to [.., H, f, W, f] → [.., H·f, W·f] → without the last f − 1."""
    assert node.shape is not None, "it returns one tensor"
    source, factors = context.read(node["x"]), node["factors"]
    shape = context.values[source].shape
    apart = (*shape[:2], *(part for size in shape[2:] for part in (size, 1)))
    name = _moved(context, op.Reshape(f"{node.name}.apart", source, _minus_one(apart)), apart)
    margins = ((0, 0), (0, 0), *(pair for factor in factors for pair in ((0, 0), (0, factor - 1))))
    filled = (*shape[:2], *(part for size, factor in zip(shape[2:], factors, strict=True) for part in (size, factor)))
    name = _moved(context, op.Pad(f"{node.name}.filled", name, margins), filled)
    joined = [*shape[:2], *((size or 0) * factor for size, factor in zip(shape[2:], factors, strict=True))]
    name = _moved(context, op.Reshape(f"{node.name}.joined", name, _minus_one(tuple(joined))), tuple(joined))
    cuts = [axis for axis, factor in enumerate(factors, 2) if factor > 1]
    for axis in cuts:
        stop = node.shape[axis]
        assert stop is not None, "only the batch is unknown"
        joined[axis] = stop
        last = axis == cuts[-1]
        cut = op.Slice(node.name if last else f"{node.name}.cut{axis}", name, axis, 0, stop, 1)
        name = _moved(context, cut, tuple(joined))
    context.names[node.name] = name


def _resize_nearest(context: Context, node: Node) -> None:
    """Along each axis the entries that torch picks: found by resizing the numbers 0, 1, 2, …"""
    source = context.read(node["input"])
    shape = list(context.values[source].shape)
    assert node.shape is not None, "a resize returns one tensor"
    factors = node["scale_factors"] or [None] * (len(shape) - 2)
    for axis, factor in enumerate(factors, 2):
        size, goal = shape[axis], node.shape[axis]
        assert size is not None, "the operator table refuses unknown sizes"
        numbers = torch.arange(size, dtype=torch.float64).reshape(1, 1, -1)
        picked = F.interpolate(numbers, goal if factor is None else None, factor).long().flatten().tolist()
        shape[axis] = goal
        last = axis == len(shape) - 1
        pick = op.Pick(node.name if last else f"{node.name}.rows{axis}", source, axis, tuple(picked))
        source = _moved(context, pick, tuple(shape))
    context.names[node.name] = source


def _expand(context: Context, node: Node) -> None:
    assert node.shape is not None, "an expansion returns one tensor"
    source = context.read(node["self"])
    shape = [*[1] * (len(node.shape) - len(context.shape(node["self"]))), *context.shape(node["self"])]
    grown = [axis for axis, (old, new) in enumerate(zip(shape, node.shape, strict=True)) if old != new]
    if len(shape) != len(context.values[source].shape):
        name = f"{node.name}.ones" if grown else node.name
        source = _moved(context, op.Reshape(name, source, _minus_one(tuple(shape))), tuple(shape))
    for axis in grown:
        size = shape[axis] = node.shape[axis]
        assert size is not None, "the operator table refuses to repeat along the batch"
        name = node.name if axis == grown[-1] else f"{node.name}.axis{axis}"
        source = _moved(context, op.Pick(name, source, axis, (0,) * size), tuple(shape))
    context.names[node.name] = source


def _minus_one(shape: Shape) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in shape)


def _moved(context: Context, made: op.Node, shape: Shape) -> str:
    """Emits a node that moves codes about, on the way to a result."""
    return context.emit(made, shape, context.encoding(op.reads(made)[0]))


def _concat(context: Context, node: Node) -> None:
    y = context.result(node)
    inputs = tuple(context.read(item) for item in node["tensors"])
    context.names[node.name] = context.emit(
        op.Concat(y.name, inputs, node["dim"] % len(y.shape), y.low, y.high), y.shape, y.encoding)


def _clamp(context: Context, node: Node) -> None:
    source = node.refs[0]
    if context.simulation.plan.grid(source) == node.name:  # the node before carries it in its bounds
        context.names[node.name] = context.names[source]
        return
    if context.uneven(node) is not None:
        return _tabulate(context, node, context.names[source], context.every_real(context.names[source]).reshape(1, -1))
    y = context.result(node)
    context.names[node.name] = context.emit(
        op.Requantize(y.name, context.names[source], y.low, y.high), y.shape, y.encoding)


def _average_pool(context: Context, node: Node) -> None:
    y = context.result(node)
    kernel = _sizes(node["kernel_size"], 2)
    stride = _sizes(node["stride"], 2) if node["stride"] else kernel
    margins = _pool_margins(context, node, kernel, stride, (1, 1))
    if node["ceil_mode"] and margins != _margins(node["padding"], kernel, (1, 1)):
        raise LoweringError(f"average pool {node.name!r} has windows that reach beyond its padding (ceil_mode): "
                            "choose sizes that divide")
    context.names[node.name] = context.emit(
        op.AveragePool(y.name, context.read(node["self"]), kernel, stride, margins,
                       node["count_include_pad"], node["divisor_override"] or 0, y.low, y.high),
        y.shape, y.encoding)


def _pool_margins(context: Context, node: Node, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Margins:
    """A pool's padding, with what ceil_mode's last windows reach beyond it added behind."""
    assert node.shape is not None, "a pool returns one tensor"
    sizes = context.shape(node["self"])[-2:]
    margins = []
    for axis, (before, after) in enumerate(_margins(node["padding"], kernel, dilation)):
        size, windows = sizes[axis], node.shape[axis - 2]
        if size is None or windows is None:
            raise LoweringError(f"pool {node.name!r} works on an axis whose size is not known")
        reach = (windows - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        margins.append((before, max(after, reach - size - before)))
    return tuple(margins)


def _max_pool(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    kernel, dilation = _sizes(node["kernel_size"], 2), _sizes(node["dilation"], 2)
    stride = _sizes(node["stride"], 2) if node["stride"] else kernel
    margins = _pool_margins(context, node, kernel, stride, dilation)
    _pass(context, node, op.MaxPool(node.name, source, kernel, stride, margins, dilation))


def _mean(context: Context, node: Node) -> None:
    y = context.result(node)
    axes = mean_axes(node)
    keep = len(y.shape) == len(context.shape(node["self"]))
    context.names[node.name] = context.emit(
        op.Mean(y.name, context.read(node["self"]), axes, keep, y.low, y.high), y.shape, y.encoding)


def _pass(context: Context, node: Node, made: op.Node) -> None:
    """Emits a node that keeps the encoding of the value it reads."""
    assert node.shape is not None, "only splits return lists"
    encoding = context.encoding(op.reads(made)[0])
    context.names[node.name] = context.emit(made, node.shape, encoding)


def _unchanged(context: Context, node: Node) -> None:
    context.names[node.name] = context.names[node.refs[0]]


def _reshape(context: Context, node: Node) -> None:
    assert node.shape is not None, "a reshape returns one tensor"
    if node.shape == context.shape(node["self"]):
        return _unchanged(context, node)
    _pass(context, node, op.Reshape(node.name, context.read(node["self"]), _minus_one(node.shape)))


def _transpose(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    order = list(range(len(context.values[source].shape)))
    if "dims" in node.arguments:
        order = [axis % len(order) for axis in node["dims"]]
    elif len(order) > 1:
        first, second = node.arguments.get("dim0", 0) % len(order), node.arguments.get("dim1", 1) % len(order)
        order[first], order[second] = order[second], order[first]
    _pass(context, node, op.Transpose(node.name, source, tuple(order)))


def _slice(context: Context, node: Node) -> None:
    shape = context.shape(node["self"])
    axis = node["dim"] % len(shape)
    size = shape[axis]
    if size is None:
        return _unchanged(context, node)  # the whole batch: the operator table refuses anything else
    start, stop, step = slice(node["start"], min(node["end"] or WHOLE, WHOLE) if node["end"] != 0 else 0,
                              node["step"]).indices(size)
    if (start, stop, step) == (0, size, 1):
        return _unchanged(context, node)
    _pass(context, node, op.Slice(node.name, context.read(node["self"]), axis, start, stop, step))


def _select(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    shape, encoding = context.values[source].shape, context.encoding(source)
    axis = node["dim"] % len(shape)
    size = shape[axis]
    assert size is not None and node.shape is not None, "the operator table refuses the batch"
    index = node["index"] % size
    kept = (*shape[:axis], 1, *shape[axis + 1:])
    part = context.emit(op.Slice(f"{node.name}.part", source, axis, index, index + 1, 1), kept, encoding)
    context.names[node.name] = context.emit(op.Reshape(node.name, part, _minus_one(node.shape)), node.shape, encoding)


def _split(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    shape, encoding = context.values[source].shape, context.encoding(source)
    axis = node["dim"] % len(shape)
    size = shape[axis]
    assert size is not None, "the operator table refuses the batch"
    if "split_sizes" in node.arguments:
        lengths = list(node["split_sizes"])
    else:
        length = -(-size // node["chunks"]) if "chunks" in node.arguments else node["split_size"]
        lengths = [min(length, size - start) for start in range(0, size, length)]
    parts, start = [], 0
    used = {n["argument1"]: n.name for n in context.simulation.model.graph.nodes
            if n.refs == (node.name,) and "argument1" in n.arguments}
    for index, length in enumerate(lengths):
        if index in used:  # parts that nobody reads are not made
            part_shape = (*shape[:axis], length, *shape[axis + 1:])
            parts.append(context.emit(op.Slice(used[index], source, axis, start, start + length, 1), part_shape,
                                      encoding))
        else:
            parts.append("")
        start += length
    context.lists[node.name] = parts


def _item(context: Context, node: Node) -> None:
    context.names[node.name] = context.lists[node.refs[0]][node["argument1"]]


def _pad(context: Context, node: Node) -> None:
    rank, flat = len(context.shape(node["self"])), list(node["pad"])
    margins = [(0, 0)] * rank
    for i in range(len(flat) // 2):  # ATen counts from the last axis
        margins[rank - 1 - i] = (flat[2 * i], flat[2 * i + 1])
    if not any(map(sum, margins)):
        return _unchanged(context, node)
    _pass(context, node, op.Pad(node.name, context.read(node["self"]), tuple(margins)))


def _nothing(context: Context, node: Node) -> None:
    """Sizes live in the shapes of the program's values."""


RULES: dict[str, Rule] = {
    "conv": _conv, "linear": _linear, "add": _add, "sub": _sub, "mul": _mul, "div": _table, "matmul": _matmul,
    "function": _table, "prelu": _prelu, "softmax": _softmax, "masked_softmax": _masked_softmax,
    "layer_norm": _layer_norm, "embedding": _embedding, "channel_shuffle": _channel_shuffle, "roll": _roll,
    "pixel_shuffle": _pixel_shuffle, "expand": _expand,
    "insert_zeros": _insert_zeros, "resize_nearest": _resize_nearest, "concat": _concat, "clamp": _clamp,
    "average_pool": _average_pool, "global_average_pool": _mean, "mean": _mean, "max_pool": _max_pool,
    "reshape": _reshape, "transpose": _transpose, "slice": _slice, "select": _select, "split": _split,
    "item": _item, "pad": _pad, "dropout": _unchanged, "batch_norm": _batch_norm, "identity": _unchanged,
    "cast": _unchanged, "size": _nothing,
}

"""Exact calls: NumPy's definition beside torch and ONNX Runtime, over types, shapes and edges."""

import numpy as np
import pytest
import torch

from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.program import reference
from fewbits.program.exact_calls import EXACT_CALLS, exactly
from fewbits.program.ops import ExactCall, Read
from fewbits.program.profile import profile
from fewbits.program.program import Program
from fewbits.program.value import Value
from fewbits.writers.onnx.program import onnx_bytes, output_name

PAIRS = ("add.Tensor", "sub.Tensor", "mul.Tensor", "minimum.default", "maximum.default", "floor_divide.default",
         "remainder.Tensor", "eq.Tensor", "ne.Tensor", "lt.Tensor", "le.Tensor", "gt.Tensor", "ge.Tensor",
         "div.Tensor")
TRUTHS = ("logical_and.default", "logical_or.default", "logical_xor.default")
COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")


def run(call, arguments, inputs, dtype, shape):
    """The call on every engine; what the definition gives."""
    values = {name: Value((None, *x.shape[1:]), None, x.dtype.name) for name, x in inputs.items()}
    node = ExactCall("y", f"aten.{call}" if "." in call else call, arguments)
    program = Program(profile("onnxruntime"), tuple(inputs), (node,), values | {"y": Value(shape, None, dtype)}, "y")
    wanted = reference.run(program, inputs)["y"]
    assert wanted.dtype == dtype
    np.testing.assert_array_equal(TorchExecutor(program).run(inputs)["y"], wanted)
    for level in ("off", "all"):
        np.testing.assert_array_equal(OnnxSession(onnx_bytes(program), level).run(inputs)[output_name("y")], wanted)
    return wanted


def drawn(dtype, *shape, seed=0):
    random = np.random.default_rng(seed)
    if dtype == "float32":
        return random.normal(0, 100, shape).astype(np.float32)
    return random.integers(0, 2, shape).astype(bool) if dtype == "bool" else random.integers(
        -5 if dtype != "uint8" else 0, 6, shape).astype(dtype)


@pytest.mark.parametrize("call", PAIRS)
@pytest.mark.parametrize(("first", "second"), [("int64", "int64"), ("int32", "int64"), ("float32", "float32"),
                                               ("float32", "bool"), ("uint8", "int64")])
def test_pairs(call, first, second):
    if not EXACT_CALLS[f"aten.{call}"].floats and "float32" in (first, second):
        pytest.skip("not exact in float32")
    a, b = drawn(first, 3, 4), drawn(second, 3, 1, seed=1)
    if call.startswith(("floor_divide", "remainder")):
        b = np.where(b == 0, 1, b).astype(b.dtype)
    arguments = {"self": Read("a"), "other": Read("b")} | ({"alpha": 3} if call in ("add.Tensor", "sub.Tensor") else {})
    kind = torch.promote_types(torch.from_numpy(a).dtype, torch.from_numpy(b).dtype)
    one, other = torch.from_numpy(a).to(kind), torch.from_numpy(b).to(kind)
    right = EXACT_CALLS[f"aten.{call}"].target(one, other * 3 if "alpha" in arguments else other)
    got = run(call, arguments, {"a": a, "b": b}, str(right.dtype).removeprefix("torch."), (None, 4))
    np.testing.assert_array_equal(got, right.numpy())


@pytest.mark.parametrize("call", TRUTHS)
@pytest.mark.parametrize("kind", ["bool", "int64"])
def test_truths(call, kind):
    a, b = drawn(kind, 3, 4), drawn(kind, 3, 4, seed=1)
    right = EXACT_CALLS[f"aten.{call}"].target(torch.from_numpy(a), torch.from_numpy(b))
    got = run(call, {"self": Read("a"), "other": Read("b")}, {"a": a, "b": b}, "bool", (None, 4))
    np.testing.assert_array_equal(got, right.numpy())


@pytest.mark.parametrize("call", COMPARED)
@pytest.mark.parametrize(("kind", "number"), [("int64", 2), ("float32", -64.0), ("bool", 0), ("int64", 1.5)])
def test_comparisons_with_a_number(call, kind, number):
    a = drawn(kind, 3, 4)
    right = EXACT_CALLS[f"aten.{call}.Scalar"].target(torch.from_numpy(a), number)
    got = run(f"{call}.Scalar", {"self": Read("a"), "other": number}, {"a": a}, "bool", (None, 4))
    np.testing.assert_array_equal(got, right.numpy())


@pytest.mark.parametrize(("call", "arguments", "kind", "dtype", "right"), [
    ("rsub.Scalar", {"self": Read("a"), "other": 1, "alpha": 1}, "int64", "int64", lambda a: 1 - a),
    ("rsub.Scalar", {"self": Read("a"), "other": 1.0, "alpha": 1}, "int64", "float32", lambda a: 1.0 - a),
    ("mul.Tensor", {"self": Read("a"), "other": -3.4028234663852886e38}, "bool", "float32",
     lambda a: a * np.float32(-3.4028234663852886e38)),
    ("neg.default", {"self": Read("a")}, "int64", "int64", lambda a: -a),
    ("abs.default", {"self": Read("a")}, "int64", "int64", np.abs),
    ("clamp.default", {"self": Read("a"), "min": -1, "max": 2}, "int64", "int64", lambda a: a.clip(-1, 2)),
    ("cumsum.default", {"self": Read("a"), "dim": 1}, "bool", "int64", lambda a: a.cumsum(1)),
    ("sum.dim_IntList", {"self": Read("a"), "dim": (1,), "keepdim": True}, "bool", "int64",
     lambda a: a.sum(1, keepdims=True)),
    ("any.dim", {"self": Read("a"), "dim": 1, "keepdim": True}, "bool", "bool", lambda a: a.any(1, keepdims=True)),
    ("all.dim", {"self": Read("a"), "dim": 1, "keepdim": True}, "bool", "bool", lambda a: a.all(1, keepdims=True)),
    ("amax.default", {"self": Read("a"), "dim": (1,), "keepdim": True}, "int64", "int64",
     lambda a: a.max(1, keepdims=True)),
    ("argmax.default", {"self": Read("a"), "dim": 1, "keepdim": True}, "int64", "int64",
     lambda a: a.argmax(1)[:, None]),
    ("to.dtype", {"self": Read("a")}, "int64", "bool", lambda a: a != 0),
    ("to.dtype", {"self": Read("a")}, "bool", "float32", lambda a: a.astype(np.float32)),
    ("logical_not.default", {"self": Read("a")}, "int64", "bool", lambda a: a == 0),
    ("masked_fill.Scalar", {"self": Read("a"), "mask": Read("m"), "value": -1e9}, "float32", "float32", None),
    ("where.ScalarSelf", {"condition": Read("m"), "self": 0.0, "other": Read("a")}, "float32", "float32", None),
])
def test_the_rest(call, arguments, kind, dtype, right):
    a, m = drawn(kind, 3, 4), drawn("bool", 3, 4, seed=2)
    inputs = {"a": a} | ({"m": m} if Read("m") in arguments.values() else {})
    width = 1 if arguments.get("keepdim") else 4
    got = run(call, arguments, inputs, dtype, (None, width))
    wanted = right(a) if right else np.where(m, np.float32(arguments.get("value", 0.0)), a)
    np.testing.assert_array_equal(got, wanted)


def test_a_table_is_looked_up():
    table, numbers = np.array([5, 7, 9]), np.array([[0, 2], [1, 1]])
    np.testing.assert_array_equal(exactly("lookup", {"table": table, "numbers": numbers}, "int64"), [[5, 9], [7, 7]])


def test_float_products_round_once_everywhere():
    """1 - keep of every float near 0 and 1, times a number: the bits of NumPy's float32."""
    keep = np.nextafter(np.array([[0, 1, 0.5, 1e-30]], np.float32), np.float32(2))
    less = run("rsub.Scalar", {"self": Read("a"), "other": 1, "alpha": 1}, {"a": keep}, "float32", (None, 4))
    np.testing.assert_array_equal(less, np.float32(1) - keep)

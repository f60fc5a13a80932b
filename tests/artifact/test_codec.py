"""The codec: dataclasses of any declared types, and the refusals."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from artifact_programs import ANY_INT
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fewbits.artifact.codec import Reader, Writer, decode, encode
from fewbits.numerics.block import Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Format, Int
from fewbits.program.ops import RECORDS, Add, Div, Gather, Max, Min, ProgramNode, Recurrence, Sub
from fewbits.program.profile import ONNXRUNTIME, PORTABLE, Profile
from fewbits.storage.refusal import Refusal


def through(value: Any, kind: Any) -> Any:
    """Encoded, as text and back, decoded; encoding that again must give the same text and tensors."""
    writer, again = Writer(), Writer()
    data = json.loads(json.dumps(encode(value, kind, writer, ("top",))))
    reader = Reader(writer.tensors)
    decoded = decode(data, kind, reader, ("top",))
    reader.finish()
    assert encode(decoded, kind, again, ("top",)) == data
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in again.tensors.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in writer.tensors.items()
    }
    return decoded


@st.composite
def quantized(draw: st.DrawFn) -> Quantized:
    format: Int = draw(st.sampled_from(ANY_INT))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    block = draw(st.sampled_from([Block(()), Block((1,)), Block((-1,) * (len(shape) - 1) + (1,))]))
    codes = draw(hnp.arrays(np.int64, shape, elements=st.integers(format.low, format.high)))
    scales = hnp.arrays(
        np.float32,
        block.scale_shape(shape),
        elements=st.floats(2.0**-140, 2.0**100, width=32, allow_subnormal=True),
    )
    scale = draw(scales)
    zero = draw(hnp.arrays(np.int64, scale.shape, elements=st.integers(format.low, format.high)))
    return Quantized(codes, Encoding(format, scale, zero, block))


def instances(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a declared type: what a program may hold, and much that it may not."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if kind is ProgramNode:
        return st.one_of([instances(member) for member in RECORDS])
    if kind is Recurrence:  # whose body holds none
        members = {name: instances(hint) for name, hint in get_type_hints(kind).items() if name != "body"}
        inner = st.one_of([instances(member) for member in RECORDS if member is not Recurrence])
        return st.builds(kind, body=st.lists(inner, max_size=2).map(tuple), **members)
    if origin in (Union, UnionType):
        return st.one_of([instances(member) for member in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(instances(arguments[0]), max_size=4).map(tuple)
        return st.tuples(*map(instances, arguments))
    if origin is Mapping:
        return st.dictionaries(instances(arguments[0]), instances(arguments[1]), max_size=4)
    simple = {
        str: st.text(max_size=8),
        float: st.floats(allow_nan=False, allow_infinity=False),
        int: st.integers(-(2**62), 2**62),
        bool: st.booleans(),
        type(None): st.none(),
        np.ndarray: hnp.arrays(np.int32, hnp.array_shapes(max_dims=2, max_side=4)),
        Quantized: quantized(),
    }
    return (
        simple[kind]
        if kind in simple
        else st.builds(kind, **{name: instances(hint) for name, hint in get_type_hints(kind).items()})
    )


@settings(max_examples=300)
@given(st.lists(instances(ProgramNode), max_size=2).map(tuple))
def test_any_node_round_trips(nodes: tuple[ProgramNode, ...]) -> None:
    assert_same(nodes, through(nodes, tuple[ProgramNode, ...]))


def assert_same(nodes: tuple[ProgramNode, ...], decoded: tuple[ProgramNode, ...]) -> None:
    for one, other in zip(nodes, decoded, strict=True):
        assert type(one) is type(other)
        for name in get_type_hints(type(one)):
            mine, theirs = getattr(one, name), getattr(other, name)
            if isinstance(mine, np.ndarray):
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)
            elif name == "body":
                assert_same(mine, theirs)
            else:
                assert mine == theirs


@dataclass(frozen=True)
class Inner:
    """A field of its own, and one with a default."""

    name: str
    flag: bool
    ratio: float
    kind: Literal["a", "b"] = "a"
    other: "Inner | None" = None


@dataclass(frozen=True)
class Fresh:
    """A node that nobody has told the codec about."""

    name: str
    table: np.ndarray
    parts: tuple[Inner, ...]
    either: "Inner | Fresh | None"
    by_name: Mapping[str, int | str]
    scale: np.ndarray | Quantized


def fresh(**changes: Any) -> Fresh:
    values: dict[str, Any] = {
        "name": "new",
        "table": np.arange(6.0).reshape(2, 3),
        "parts": (Inner("p", True, 0.1, "b"), Inner("q", False, 1e300)),
        "either": Inner("e", True, -0.0),
        "by_name": {"z": 1, "a": "two"},
        "scale": np.array([0.1, 0.2], np.float32),
    }
    return Fresh(**(values | changes))


def test_a_dataclass_nobody_foresaw_round_trips() -> None:
    decoded = through(fresh(), Fresh)
    assert (decoded.parts, decoded.either, decoded.by_name) == (
        fresh().parts,
        fresh().either,
        fresh().by_name,
    )
    assert list(decoded.by_name) == ["z", "a"]
    assert decoded.table.dtype == np.float64
    inner = Quantized(np.array([3, 4]), Encoding(Int(8), 0.5))
    assert through(fresh(scale=inner, either=fresh(either=None)), Fresh).scale == inner
    assert through((fresh(either=None),), tuple[ProgramNode | Fresh, ...])[0].either is None


def test_defaults_are_left_out() -> None:
    assert encode(Inner("n", True, 0.5), Inner, Writer()) == {"name": "n", "flag": True, "ratio": 0.5}


@pytest.mark.parametrize("profile", [ONNXRUNTIME, PORTABLE])
def test_profiles_are_stored_by_value(profile: Profile) -> None:
    assert through(profile, Profile) == profile


@pytest.mark.parametrize("format", ANY_INT, ids=str)
def test_formats_are_stored_as_text(format: Int) -> None:
    assert encode(format, Format, Writer()) == str(format)
    assert through(format, Format) == format


@settings(max_examples=300)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 4))
def test_one_float_stays_in_the_json_and_is_exact(number: float, rank: int) -> None:
    array = np.full((1,) * rank, number, np.float32)
    writer = Writer()
    encode(array, np.ndarray, writer, ("top",))
    assert not writer.tensors
    assert through(array, np.ndarray).tobytes() == array.tobytes()
    assert through(array, np.ndarray).shape == array.shape


def test_floats_are_short() -> None:
    assert json.dumps(encode(np.array(0.1, np.float32), np.ndarray, Writer(), ("top",))) == "0.1"


@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_what_json_has_no_number_for_is_a_tensor(number: float) -> None:
    np.testing.assert_array_equal(
        through(np.array([number], np.float32), np.ndarray), np.array([number], np.float32)
    )


@pytest.mark.parametrize(
    "structure", [None, "a", ["a", None], ("a",), {"a": ["b", ("c",)], 3: "d"}, (), [], {}]
)
def test_structures_keep_their_types(structure: Any) -> None:
    decoded = through(structure, Any)
    assert decoded == structure
    assert repr(decoded) == repr(structure)


def test_namesakes_get_tensors_of_their_own() -> None:
    bias = np.arange(3, dtype=np.int32)
    writer = Writer()
    for _ in range(2):
        encode(bias, np.ndarray, writer, ("a", "bias"))
    assert list(writer.tensors) == ["a.bias", "a.bias#2"]


@pytest.mark.parametrize(
    "value",
    [
        fresh(parts=[Inner("p", True, 0.1)]),
        fresh(either="text"),
        fresh(by_name={1: 2}),
        fresh(table=np.array(["x"])),
        fresh(parts=(Inner("p", True, float("nan")),)),
        fresh(parts=(Inner("p", cast(bool, 1), 0.5),)),
        fresh(scale=np.array([0.1, 0.2])),
        fresh(name=None),
    ],
)
def test_values_of_other_types_are_not_stored(value: Fresh) -> None:
    with pytest.raises(Refusal, match="that its type does not allow"):
        encode(value, Fresh, Writer(), ("top",))


@pytest.mark.parametrize("structure", ["deep", {1.5: "a"}, {"a": 3}])
def test_structures_that_cannot_be_stored(structure: Any) -> None:
    if structure == "deep":
        for _ in range(40):
            structure = [structure]
    with pytest.raises(Refusal):
        encode(structure, Any, Writer(), ("top",))


@pytest.mark.parametrize(("old", "now"), [
    ({"Add": {"name": "y", "first": "a", "second": "b", "low": 0, "high": 9, "subtract": True}}, Sub),
    ({"Add": {"name": "y", "first": "a", "second": "b", "low": 0, "high": 9}}, Add),
    ({"Larger": {"name": "y", "first": "a", "second": "b", "low": 0, "high": 9}}, Max),
    ({"Larger": {"name": "y", "first": "a", "second": "b", "low": 0, "high": 9, "least": True}}, Min),
    ({"Larger": {"name": "y", "first": "a", "second": "b", "low": 0, "high": 9, "least": False}}, Max),
    ({"Quotient": {"name": "y", "first": "a", "second": "b", "low": 0, "high": 9}}, Div),
    ({"Pick": {"name": "y", "input": "a", "axis": 1, "indices": [2, 0]}}, Gather),
])
def test_files_of_earlier_versions_name_operators_as_they_did(old: dict, now: type) -> None:
    node = decode(old, ProgramNode, Reader({}), ("top",))
    assert type(node) is now
    assert through(node, ProgramNode).name == "y"


def test_what_no_version_called_so_is_refused() -> None:
    for wrong in ({"Larger": {"name": "y", "first": "a", "second": "b", "low": 0, "high": 9, "least": 1}},
                  {"Sub": {"name": "y", "first": "a", "second": "b", "low": 0, "high": 9, "subtract": True}},
                  {"Larger": 3}, {"Smaller": {}}):
        with pytest.raises(Refusal):
            decode(wrong, ProgramNode, Reader({}), ("top",))

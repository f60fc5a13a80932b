"""Files that are cut, damaged, foreign or forged. Each is refused in one sentence, none with a traceback."""

import contextlib
import json
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifact_programs import every_node, forged, linear, one_bit
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import fewbits as fb
from fewbits.artifact import vectors
from fewbits.artifact.file import from_bytes, read, to_bytes
from fewbits.artifact.verify import verify
from fewbits.errors import FewbitsError, FileError, ProgramError, VerificationError
from fewbits.storage import container
from fewbits.storage.refusal import Refusal

WHOLE = to_bytes(one_bit())
EVERY = to_bytes(every_node())
Tensors = dict[str, np.ndarray]


def refusal(data: bytes, folder: Path) -> str:
    """The sentence with which the file is refused: one line, by name, with a mend."""
    path = folder / "a.fewbits"
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        read(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} ")
    assert "\n" not in sentence
    assert ": " in sentence.removeprefix(str(path))
    assert caught.value.__cause__ is None
    assert len(sentence) < 400 + len(str(path))
    return sentence


def cheap_refusal(data: bytes, folder: Path) -> str:
    """The same, and it takes memory only in proportion to the file."""
    tracemalloc.start()
    try:
        sentence = refusal(data, folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(data) + 2**20
    return sentence


# ------------------------------------------------------------------------------- damage


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    for length in range(len(WHOLE)):
        assert "cut short" in refusal(WHOLE[:length], tmp_path)


def test_every_flipped_bit_is_refused() -> None:
    data = bytearray(WHOLE)
    for i in range(len(data)):
        for bit in range(8):
            data[i] ^= 1 << bit
            with pytest.raises(Refusal):
                from_bytes(bytes(data), "a")
            data[i] ^= 1 << bit
    from_bytes(bytes(data), "a")


@settings(max_examples=300)
@given(st.integers(0, 8 * len(EVERY) - 1))
def test_a_flipped_bit_of_a_larger_file_is_refused(bit: int) -> None:
    data = bytearray(EVERY)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refusal):
        from_bytes(bytes(data), "a")


def test_a_damaged_tensor_is_named(tmp_path: Path) -> None:
    offset = (
        len(EVERY)
        - sum(t.nbytes for t in container.parse(EVERY).tensors.values())
        - 8 * len(container.parse(EVERY).tensors)
    )
    for name, tensor in container.parse(EVERY).tensors.items():
        data = bytearray(EVERY)
        data[offset] ^= 4
        offset += tensor.nbytes
        assert f"is damaged in tensor '{name}'" in refusal(bytes(data), tmp_path)


def test_a_damaged_digest_is_named(tmp_path: Path) -> None:
    digest = container.parse(EVERY).digest.encode()
    wrong = digest.translate(bytes.maketrans(b"0123456789abcdef", b"123456789abcdef0"))
    assert "is damaged in its header" in refusal(EVERY.replace(digest, wrong), tmp_path)


@pytest.mark.parametrize("tail", [b"\0", b"more", WHOLE])
def test_trailing_bytes_are_refused(tail: bytes, tmp_path: Path) -> None:
    assert f"has {len(tail)} bytes behind its end" in refusal(WHOLE + tail, tmp_path)


# ------------------------------------------------------------------------------ not ours


def test_paths_that_hold_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, told in (
        (tmp_path / "absent", "does not exist: check the path"),
        (tmp_path, "is a folder: name"),
        (tmp_path / "pipe", "is no regular file"),
        (f"{tmp_path}/\0", "does not exist"),
        ("/dev/zero", "is no regular file"),
    ):
        with pytest.raises(FileError, match=told):
            read(path)


def test_no_header_length_is_taken_for_a_pickle() -> None:
    for length in range(1, 2000, 3):
        data = container.build({"n" * length: np.zeros(8, np.uint8)}, "w")
        assert container.parse(data).tensors.keys() == {"n" * length}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickles_are_refused(protocol: int, tmp_path: Path) -> None:
    assert "is a pickle or a zip" in refusal(pickle.dumps({"weights": [1.0] * 9}, protocol), tmp_path)


def test_checkpoints_and_zips_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pt")
    assert "is a pickle or a zip" in refusal((tmp_path / "net.pt").read_bytes(), tmp_path)
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("a", "b")
    assert "is a pickle or a zip" in refusal((tmp_path / "z").read_bytes(), tmp_path)


def test_other_safetensors_files_are_refused(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "net.safetensors")
    assert "fewbits did not write it" in refusal((tmp_path / "net.safetensors").read_bytes(), tmp_path)
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "net.safetensors", {"format": "pt"})
    assert "fewbits did not write it" in refusal((tmp_path / "net.safetensors").read_bytes(), tmp_path)


@pytest.mark.parametrize(
    "data", [b"not a file of ours at all", b"\0" * 100, bytes(range(256)), b"{" * 64, "ünïcode".encode() * 9]
)
def test_other_bytes_are_refused(data: bytes, tmp_path: Path) -> None:
    refusal(data, tmp_path)


def test_a_newer_version_asks_for_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "VERSION", 2)
    newer = forged(one_bit(), lambda *_: None)
    monkeypatch.undo()
    assert refusal(newer, tmp_path).endswith(
        "has format version 2, written by 'fewbits test', and this fewbits reads version 1: upgrade fewbits"
    )
    monkeypatch.setattr(container, "VERSION", 0)
    older = forged(one_bit(), lambda *_: None)
    monkeypatch.undo()
    assert "format version '0' or facts that never were" in refusal(older, tmp_path)


# -------------------------------------------------------------------- hostile safetensors headers


def headed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The file with another safetensors header: a table, or its text; the digest is right again."""
    length = int.from_bytes(WHOLE[:8], "little")
    header = json.loads(WHOLE[8 : 8 + length])
    header["__metadata__"]["digest"] = "0" * 64
    changed = change(header)
    text = (
        changed if isinstance(changed, bytes) else container.to_json(header if changed is None else changed)
    )
    head = len(text).to_bytes(8, "little") + text
    digest = container._digest(head, WHOLE[8 + length :])
    return head.replace(b"0" * 64, digest.encode(), 1) + WHOLE[8 + length :]


def entry(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header["fewbits.program"].update(changes)


def test_a_header_that_is_only_rewritten_is_refused(tmp_path: Path) -> None:
    assert "did not write" in refusal(headed(lambda h: container.to_json(h).replace(b'":', b'": ')), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        entry(shape=[2**60]),
        entry(shape=[-1]),
        entry(shape=[2**62, 2**62, 4]),
        entry(shape=[1] * 9),
        entry(shape="1"),
        entry(shape=[True]),
        entry(shape=[1.0]),
        entry(shape=None),
        entry(dtype="F8"),
        entry(dtype=8),
        entry(dtype="I32"),
        entry(data_offsets=[0, 2**63]),
        entry(data_offsets=[-8, 0]),
        entry(data_offsets=[8]),
        entry(data_offsets={}),
        entry(data_offsets=[0, 10**400]),
        entry(extra=1),
        entry(shape=[0, 2**47]),
        lambda h: h.update({"fewbits.program": 3}),
        lambda h: h.pop("fewbits.program"),
        lambda h: h.pop("fewbits.hashes"),
        lambda h: h.pop("__metadata__"),
        lambda h: h.update(__metadata__=[]),
        lambda h: {"__metadata__": h["__metadata__"]},
        lambda h: h["__metadata__"].update(version=1),
        lambda h: h["__metadata__"].update(version="1.5"),
        lambda h: h["__metadata__"].update(version="9" * 5000),
        lambda h: h["__metadata__"].pop("writer"),
        lambda h: h["__metadata__"].update(code="import os"),
        lambda h: h["__metadata__"].update(digest="0"),
        lambda h: h.update(empty={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
        lambda h: dict(reversed(h.items())),
        lambda h: container.to_json(h).replace(b'"fewbits.nodes"', b'"fewbits.program"'),
        lambda h: container.to_json(h).replace(b'"shape"', b'"dtype"', 1),
        lambda h: b"{" + b'"a":[' * 100_000,
        lambda h: b"[" * 1_000_000,
        lambda h: b"{" + b'"a":' + b"[" * 900 + b"]" * 900 + b"}",
        lambda h: b"{}",
        lambda h: b'{"a":NaN}',
        lambda h: b'{"a":' + b"9" * 5000 + b"}",
        lambda h: b'{"a":1e999}',
        lambda h: b'{"\xff":1}',
        lambda h: b"{",
        lambda h: container.to_json(h) + b"x",
        lambda h: container.to_json(h) + b"\0",
    ],
    ids=lambda _: "",
)
def test_hostile_headers_are_refused(change: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    cheap_refusal(headed(change), tmp_path)


@pytest.mark.parametrize("length", [container.HEADER_LIMIT + 1, 2**63, 2**64 - 1])
def test_an_oversized_header_is_refused_unread(length: int, tmp_path: Path) -> None:
    assert "is the most there may be" in refusal(length.to_bytes(8, "little") + b"{" + b" " * 100, tmp_path)


# ---------------------------------------------------------- hostile programs under right hashes


def bits(document: Any) -> Any:
    return document["nodes"][1]["Linear"]


def put(node: str, **changes: Any) -> Callable[[Any, Tensors], Any]:
    return lambda document, _: document["nodes"][1][node].update(changes)


def encoding(**changes: Any) -> Callable[[Any, Tensors], Any]:
    return lambda document, _: bits(document)["weight"]["encoding"].update(changes)


def tensor(name: str, array: Any) -> Callable[[Any, Tensors], Any]:
    return lambda _, tensors: tensors.update({name: array})


def without(name: str) -> Callable[[Any, Tensors], Any]:
    return lambda _, tensors: tensors.pop(name) is None or None


def as_wide(size: int) -> Callable[[Any, Tensors], None]:
    """So many rows in each value."""
    def change(document: Any, _: Tensors) -> None:
        for value in document["values"].values():
            value.update(shape=[size, value["shape"][-1]])

    return change


def told_of(value: object) -> str | None:
    return value if isinstance(value, str) else ""


def nested(levels: int) -> Any:
    value: Any = "fc"
    for _ in range(levels):
        value = {"list": [value]}
    return value


U8 = np.uint8


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("Linear", evil=1), "says 'evil' of 'fc', which this fewbits does not know: upgrade"),
        (lambda d, _: bits(d).pop("low") and None, "does not say 'low' of 'fc'"),
        (lambda d, _: bits(d).pop("weight") and None, "does not say 'weight'"),
        (lambda d, _: bits(d)["weight"].pop("codes") and None, "does not say 'codes'"),
        (lambda d, _: bits(d)["weight"]["encoding"].pop("scale") and None, "does not say 'scale'"),
        (put("Linear", low="0"), "has '0' at 'fc.low'"),
        (put("Linear", low=0.5), "has 0.5 at 'fc.low'"),
        (put("Linear", low=True), "has True at 'fc.low'"),
        (put("Linear", low=2**63), "at 'fc.low'"),
        (put("Linear", low=None), "has None at 'fc.low'"),
        (put("Linear", name=3), "has 3 at"),
        (put("Linear", input=["x"]), "has list at 'fc.input'"),
        (put("Linear", weight=None), "has None at 'fc.weight'"),
        (put("Linear", weight=[]), "has list at 'fc.weight'"),
        (put("Linear", input="later"), "reads 'later', which nothing before it wrote"),
        (
            lambda d, _: d["nodes"].append({"Quantize": {"name": "x.codes", "input": "x"}}),
            "two values are called 'x.codes'",
        ),
        (put("Linear", name="other"), "tensor 'other.weight.scale'"),
        (put("Linear", bias=0.5), "'fc.bias' in float32, not int32"),
        (put("Linear", bias=2**31), "at 'fc.bias'"),
        (put("Linear", bias="x"), "has 'x' at 'fc.bias'"),
        (put("Linear", bias=[[1, 2]]), "has list at 'fc.bias'"),
        (put("Linear", bias={"shape": [2**62]}), "at 'fc.bias'"),
        (put("Linear", bias={"shape": [4]}), "'fc.bias' in shape [3], not [4]"),
        (put("Linear", bias={"shape": [3], "dtype": "x"}), "has dict at 'fc.bias'"),
        (put("Linear", bias=None), "tensor 'fc.bias' that belongs to nothing"),
        (tensor("fc.bias", np.zeros(3, np.float32)), "'fc.bias' in float32, not int32"),
        (tensor("fc.bias", np.zeros(3, np.int64)), "'fc.bias' in int64, not int32"),
        (tensor("fc.weight.scale", np.ones((3, 1))), "in float64, not float32"),
        (tensor("fc.weight.scale", np.zeros((3, 1), np.float32)), "a scale must be finite and positive"),
        (
            tensor("fc.weight.scale", np.full((3, 1), np.nan, np.float32)),
            "a scale must be finite and positive",
        ),
        (tensor("fc.weight", np.zeros(9, U8)), "in 9 bytes of uint8, but its shape and format take 8"),
        (tensor("fc.weight", np.zeros(8, np.int8)), "in 8 bytes of int8"),
        (tensor("fc.weight", np.zeros((2, 4), U8)), "take 8 of uint8"),
        (tensor("more", np.zeros(3, U8)), "holds a tensor 'more' that belongs to nothing"),
        (tensor("fewbits.output.gone", np.zeros(3, U8)), "that belongs to nothing"),
        (tensor("fewbits.nodes", np.zeros((3, 8), U8)), "one test hash for each value"),
        (tensor("fewbits.output.fc", np.zeros(23, U8)), "the expected codes of 'fc'"),
        (without("fc.weight"), "has no tensor 'fc.weight'"),
        (without("fewbits.program"), "has no tensor 'fewbits.program'"),
        (without("fewbits.nodes"), "has no tensor 'fewbits.nodes'"),
        (without("fewbits.output.fc"), "has no tensor 'fewbits.output.fc'"),
        (encoding(format="int5"), "but its shape and format take 10"),
        (encoding(format="int99"), "names a format 'int99'"),
        (encoding(format="int" + "9" * 5000), "names a format"),
        (encoding(format=" int4"), "has ' int4' at"),
        (encoding(format="int4-narrow"), "leave int4-narrow"),
        (encoding(zero_point=100), "100 … 100] is no code of int4"),
        (encoding(zero_point=0.5), "in float32, not int32"),
        (encoding(scale=-1.0), "a scale must be finite and positive"),
        (encoding(scale=1e39), "has 1e+39 at"),
        (encoding(block={"sizes": [0]}), "a block is made of sizes"),
        (encoding(block={"sizes": [2]}), "does not divide"),
        (encoding(block={"sizes": [-1, -1, -1, 2]}), "has more axes"),
        (lambda d, _: bits(d)["weight"].update(codes={"shape": [3, -5]}), "at 'fc.weight.codes'"),
        (lambda d, _: bits(d)["weight"].update(codes={"shape": [2**40, 2**40]}), "at 'fc.weight.codes'"),
        (lambda d, _: bits(d)["weight"].update(codes={"shape": [1] * 9}), "at 'fc.weight.codes'"),
        (lambda d, _: bits(d)["weight"].update(codes={"shape": [15]}), "need"),
        (lambda d, _: bits(d)["weight"].update(codes=[[8]]), "at 'fc.weight.codes'"),
        (lambda d, _: bits(d)["weight"].update(codes=[[7.0]]), "at 'fc.weight.codes'"),
        (lambda d, _: d["nodes"].append({"Exec": {"name": "os.system"}}), "holds 'Exec'"),
        (lambda d, _: d["nodes"].append({"Profile": {}}), "holds 'Profile'"),
        (lambda d, _: d["nodes"].append({"Linear": {}, "Conv": {}}), "has dict at 'nodes.2'"),
        (lambda d, _: d["nodes"].append({}), "has dict at 'nodes.2'"),
        (lambda d, _: d["nodes"].append(7), "has 7 at 'nodes.2'"),
        (lambda d, _: d.update(nodes={}), "has dict at 'nodes'"),
        (lambda d, _: d.update(inputs=["x", "y"]), "holds at the top what no Program can be"),
        (lambda d, _: d.update(inputs=[]), "what no Program can be"),
        (lambda d, _: d["values"].pop("x") and None, "holds at the top what no Program can be"),
        (
            lambda d, _: d["values"].update(y={"shape": [], "encoding": None}),
            "values and nodes do not match at 'y'",
        ),
        (lambda d, _: d["values"]["fc"].update(shape=[None, -3]), "its value says N×-3"),
        (lambda d, _: d["values"]["x"].update(shape=[2**60, 2**60]), "and its value says N×5"),
        (as_wide(2**60), "says of 'x' that it is"),
        (as_wide(2**28), "says of 'x' that it is"),
        (lambda d, _: d["values"]["fc"].update(shape=[None, 4]), "its value says N×4"),
        (lambda d, _: d["values"]["x"].update(shape="8"), "has '8' at 'x.shape'"),
        (lambda d, _: d.update(structure=nested(100)), "where that cannot be"),
        (lambda d, _: d.update(structure={"set": ["fc"]}), "where that cannot be"),
        (lambda d, _: d.update(structure={"dict": [["a", "fc"], ["a", "fc"]]}), "where that cannot be"),
        (lambda d, _: d.update(structure={"dict": [[[], "fc"]]}), "where that cannot be"),
        (lambda d, _: d.update(structure={"tuple": [3]}), "where that cannot be"),
        (lambda d, _: d.update(structure="gone"), "output 'gone' is written by no node"),
        (lambda d, _: d["profile"].update(addition="magic"), "has 'magic' at 'profile.addition'"),
        (lambda d, _: d["profile"].update(accumulator="uint99"), "names a format"),
        (lambda d, _: [d], "has list at the top"),
        (lambda d, _: "text", "has 'text' at the top"),
        (lambda d, _: 5, "has 5 at the top"),
    ],
    ids=told_of,
)
def test_hostile_programs_are_refused(
    change: Callable[[Any, Tensors], Any], told: str, tmp_path: Path
) -> None:
    assert told in cheap_refusal(forged(linear(), change), tmp_path)


def test_deep_json_is_refused(tmp_path: Path) -> None:
    for text in (
        b"[" * 200_000,
        b'{"profile":' * 50_000,
        b"[" * 900 + b"]" * 900,
        b"{}",
        b"",
        b"\xff",
        b'{"a":1,"a":1}',
    ):
        data = forged(linear(), lambda _, tensors, text=text: _replace_document(tensors, text))
        refusal(data, tmp_path)


def _replace_document(tensors: Tensors, text: bytes) -> None:
    del tensors["fewbits.program"]
    tensors["fewbits.program "] = np.frombuffer(text, U8)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["x", "fc", "a.conv", "int8", "uint4"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.just("shape"), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=400)
@given(st.data())
def test_any_change_to_a_program_loads_or_is_refused(data: st.DataObject) -> None:
    def change(document: Any, _: Tensors) -> Any:
        place = document
        while True:  # down to a random place, then something else stands there
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 5)) == 0:
                break
            place = place[key]
        if data.draw(st.booleans()):
            place[key] = data.draw(JSON)
        else:
            del place[key]

    forgery = forged(every_node(), change)
    with contextlib.suppress(Refusal):
        from_bytes(forgery, "a")


def at(node: int, kind: str, **other: Any) -> Callable[[Any, Tensors], None]:
    return lambda document, _: document["nodes"][node][kind].update(other)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (at(3, "Conv", groups=0), "in 0 groups do not go with"),
        (at(3, "Conv", groups=4), "do not go with N×2×10×9"),
        (at(3, "Conv", stride=[0, 0]), "stride [0, 0]"),
        (at(3, "Conv", padding=[[2**40, 0], [0, 0]]), "are none"),
        (at(3, "Conv", padding=[[9, 0], [0, 1]]), "and its value says"),
        (at(3, "Conv", low=-1), "are none of uint8"),
        (at(3, "Conv", high=256), "are none of uint8"),
        (at(4, "MaxPool", kernel=[-1, 2]), "windows [-1, 2]"),
        (at(11, "Slice", axis=9), "has no axis 9"),
        (at(11, "Slice", step=0), "a step of 0"),
        (at(12, "Transpose", permutation=[9]), "axes [9] are no order"),
        (at(13, "Mean", axes=[5]), "no mean over axes [5]"),
        (at(22, "Reshape", shape=[-1, -2]), "has no shape [-1, -2]"),
        (at(22, "Reshape", shape=[-1, -1]), "has no shape [-1, -1]"),
        (at(22, "Reshape", shape=[-1, 7, 1, 1, 1, 1, 0]), "has no shape [-1, 7, 1, 1, 1, 1, 0]"),
    ],
)
def test_a_node_that_cannot_be_computed_is_refused(
    change: Callable[[Any, Tensors], Any], told: str, tmp_path: Path
) -> None:
    assert told in cheap_refusal(forged(every_node(), change), tmp_path)


def test_sums_that_leave_their_integers_are_refused(tmp_path: Path) -> None:
    """Engines differ where sums overflow, each in its own way."""
    change = tensor("fc.bias", np.array([2**31 - 1, 0, 0], np.int32))
    assert "'fc' needs sums of 33 bits" in cheap_refusal(forged(linear(), change), tmp_path)


def test_a_program_that_cannot_run_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.fewbits").write_bytes(forged(every_node(), at(22, "Reshape", shape=[7, 7])))
    with pytest.raises(VerificationError, match="holds a program that reference cannot run"):
        verify(tmp_path / "a.fewbits")
    for engine in ("reference", "torch", "native"):
        model = fb.load(tmp_path / "a.fewbits", engine)
        given = {name: torch.from_numpy(array) for name, array in vectors.inputs(model.program).items()}
        with pytest.raises(ProgramError, match=r"the node 'flat' cannot be computed .*: lower the network again"):
            model(**given)


def test_an_input_too_large_for_test_vectors_is_refused(tmp_path: Path) -> None:
    def wide(document: Any, tensors: Tensors) -> None:
        as_wide(2**24)(document, tensors)
        del tensors["fewbits.output.fc"]  # too many to be stored

    (tmp_path / "a.fewbits").write_bytes(forged(linear(), wide))
    with pytest.raises(FewbitsError, match="and test vectors have at most"):
        verify(tmp_path / "a.fewbits")

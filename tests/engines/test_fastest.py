"""The engine that is chosen where nobody names one: by rule, then measured once and kept, and never another answer."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.engines import fastest, kept_choices
from fewbits.engines.executable import Executable
from fewbits.engines.fastest import by_rule
from fewbits.engines.kept_choices import VARIABLE, Choice
from fewbits.kernels import library
from fewbits.program.examples import as_program
from fewbits.program.ops import RECORDS, Linear

HAS_VECTORS = len(library.levels()) > 2


@pytest.fixture(scope="module")
def made():
    """(a quantized model, an input)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    x = torch.randn(12, 1, 6, 6)
    return fb.quantize(net.eval(), x, [x]), x


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where choices are kept."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines.json"


@pytest.mark.skipif(not HAS_VECTORS, reason="the native library has no vector instructions here")
def test_native_kernels_with_vectors_are_the_rule_and_torch_without(made):
    program = made[0].program
    with library.use(library.levels()[-1]):
        assert by_rule(program)[0].name == "native"
        assert Executable(program).engine == "native"
    for level in ("portable", "numpy"):
        with library.use(level):
            engine, reason = by_rule(program)
            assert engine.name == "torch"
            assert "by rule" in reason


def test_a_program_that_ran_long_is_measured_once_and_kept(made, cache, monkeypatch):
    model, x = made
    monkeypatch.setattr(fastest, "LONG", 0.0)
    first = Executable(model.program)
    wanted = Executable(model.program, "reference").codes(x)
    assert torch.equal(first.codes(x), wanted)
    assert "measured on this processor: " in first.engine_told
    for name in ("torch", "onnxruntime", *(["native"] if library.native() else [])):
        assert f"{name} " in first.engine_told
    assert torch.equal(first.codes(x), wanted)
    assert len(json.loads(cache.read_text())["choices"]) == 1

    monkeypatch.setattr(fastest, "_measured", None)  # another process does not measure again
    second = Executable(model.program)
    assert (second.engine, second.engine_told) == (first.engine, first.engine_told)
    assert torch.equal(second.codes(x), wanted)


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_what_is_kept_is_what_runs(made, cache, name):
    model, x = made
    key = fastest._key(model.program)
    kept_choices.keep(key, Choice(name, "measured elsewhere"))
    chosen = Executable(model.program)
    assert chosen.engine == name
    assert chosen.engine_told == f"{name} (measured elsewhere)"
    assert torch.equal(chosen(x), Executable(model.program, "reference")(x))


@pytest.mark.parametrize("held", [
    b"", b"{", b"[]", b"\xff\x00", b'{"fewbits engines": 2, "choices": {}}', b'{"fewbits engines": 1, "choices": [1]}',
    b'{"fewbits engines": 1, "choices": {"a": 1}}', b"[" * 100_000], ids=range(8))
def test_a_damaged_file_of_choices_counts_as_empty(cache, held):
    cache.parent.mkdir()
    cache.write_bytes(held)
    assert kept_choices.known("a") is None
    kept_choices.keep("a", Choice("torch", "why"))
    assert kept_choices.known("a") == Choice("torch", "why")


def test_a_choice_of_an_engine_that_is_not_there_is_not_taken(made, cache):
    kept_choices.keep(fastest._key(made[0].program), Choice("elsewhere", "measured"))
    assert Executable(made[0].program).engine == by_rule(made[0].program)[0].name


def test_where_nothing_can_be_kept_nothing_is(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in ("", str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        monkeypatch.setenv(VARIABLE, place)
        kept_choices.keep("a", Choice("torch", "why"))
        assert kept_choices.known("a") is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_oldest_choices_go_first(cache, monkeypatch):
    monkeypatch.setattr(kept_choices, "_MOST", 2)
    for key in ("a", "b", "c"):
        kept_choices.keep(key, Choice(key, ""))
    assert [kept_choices.known(key) for key in ("a", "b", "c")] == [None, Choice("b", ""), Choice("c", "")]


def test_programs_with_islands_stay_on_one_engine(made, monkeypatch):
    """Their float32 numbers may differ from engine to engine."""
    monkeypatch.setattr(fastest, "LONG", 0.0)
    monkeypatch.setattr(fastest, "_measured", None)
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    model = fb.quantize(net, x, recipe="w8")
    assert model.program.has_islands
    assert model.engine == "torch"
    assert torch.equal(model(x), model(x))


def test_sums_that_float32_does_not_tell_are_not_measured_in_onnxruntime():
    program, _ = as_program(RECORDS[Linear].examples()[2])
    node = program.nodes[-1]
    assert isinstance(node, Linear)
    wide = replace(program, nodes=(*program.nodes[:-1], replace(node, bias=np.array([2**23, 0, 0, 0], np.int32))))
    first = by_rule(program)[0]
    assert "onnxruntime" in {each.name for each in fastest._others(program, first)}
    assert "onnxruntime" not in {each.name for each in fastest._others(wide, first)}


def test_an_engine_can_be_given_to_the_verbs(made):
    model, x = made
    labels = torch.arange(len(x)) % 5
    wanted = fb.evaluate(model, [(x, labels)])
    for engine in ("reference", "torch", "onnxruntime"):
        assert fb.evaluate(model, [(x, labels)], engine=engine) == wanted
    with pytest.raises(fb.FewbitsError, match="engine 'onnx' is none: did you mean onnxruntime"):
        fb.evaluate(model, [(x, labels)], engine="onnx")
    with pytest.raises(fb.FewbitsError, match="is for quantized models, and a Identity runs as it is: leave it out"):
        fb.evaluate(nn.Identity(), [(x, labels)], engine="torch")

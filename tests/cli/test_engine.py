"""`--engine`: each runs what it should, and a name that none has, or an engine that is not here, is one sentence."""

import pytest

from fewbits.cli.verbs.shared import ENGINE_NAMES
from fewbits.engines import openvino
from fewbits.engines.registry import ENGINES as THERE
from fewbits.kernels import library

DATA = ("--data", "npz:data.npz", "--mean", "0.5", "--std", "0.25")
ENGINES = ("fastest", "torch", "onnxruntime", "reference", *(["native"] if library.native() else []))


def test_the_help_names_every_engine():
    assert set(ENGINE_NAMES.split(", ")[:-1]) == set(THERE)


def test_every_engine_gives_the_same_accuracy(saved, small, fewbits, monkeypatch):
    monkeypatch.chdir(small)
    said = {engine: fewbits("evaluate", saved / "model.fewbits", *DATA, "--engine", engine) for engine in ENGINES}
    assert {result.code for result in said.values()} == {0}
    assert len({result.out.splitlines()[0] for result in said.values()}) == 1
    for engine, result in said.items():
        told = result.out.splitlines()[1]
        assert told.startswith("engine " if engine == "fastest" else f"engine {engine}")
    assert "by rule: " in said["fastest"].out


def test_files_are_replayed_on_the_engines_that_are_named(saved, fewbits):
    result = fewbits("verify", saved / "model.fewbits", "--engine", "torch", "--engine", "fastest")
    assert result.code == 0
    assert [line.split(":")[0] for line in result.out.splitlines()[:2]] == ["torch", "fastest"]
    assert result.out.count("as expected") == 2


@pytest.mark.parametrize("verb", ["evaluate", "verify", "quantize", "search"])
def test_an_engine_that_there_is_not(saved, small, fewbits, monkeypatch, tmp_path, verb):
    monkeypatch.chdir(small)
    monkeypatch.setattr(openvino, "openvino_missing", lambda: "OpenVINO is not installed here: pip install it")
    network = ("mynets:small", "--weights", "small.pt", *DATA, "--out", tmp_path / "out")
    given = {"evaluate": (saved / "model.fewbits", *DATA), "verify": (saved / "model.fewbits",), "quantize": network,
             "search": (*network, "--max-drop", "1")}[verb]
    for engine, told in (("onnx", "engine 'onnx' is none: did you mean onnxruntime"),
                         ("openvino", "engine 'openvino' cannot run: OpenVINO is not installed here: pip install it")):
        result = fewbits(verb, *given, "--engine", engine)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"fewbits: {told}")
        assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_quantize_says_what_each_engine_takes(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    result = fewbits("quantize", "mynets:small", "--weights", "small.pt", *DATA, "--out", tmp_path / "out",
                     "--engine", "torch", "--verbose")
    assert result.code == 0, result.err
    for name in ("torch", *(["native"] if library.native() else [])):
        assert f"  integers in {name}" in result.out
    if library.native():
        assert "; 0 nodes without a native kernel." in " ".join(result.out.split())

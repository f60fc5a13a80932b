"""`--processor`: what is written where, what is said of it, and what is left when an export is refused."""

import json

import onnx
import pytest

from fewbits.engines import processor as processors
from fewbits.engines.processor import Processor
from fewbits.export import verified
from fewbits.report import report

NO_VNNI = Processor("a machine without VNNI", "x86_64", 1, ("avx2", "fma"))
DATA = ("--data", "npz:data.npz", "--mean", "0.5", "--std", "0.25")
QUANTIZE = ("quantize", "mynets:small", "--weights", "small.pt", *DATA)


def weight_types(file) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(file).graph.initializer if tensor.name.endswith(".weight")}


def test_what_is_said_of_a_saved_model(saved, fewbits, tmp_path):
    said = fewbits("inspect", saved / "model.fewbits").out
    assert "onnxruntime: exported with --processor any, exact on any x86-64; other processors: not checked" in said
    assert "onnxruntime: exported with --processor vnni, exact on x86-64 with VNNI, or without AVX2, for" in said
    assert weight_types(saved / "model.onnx") == {onnx.TensorProto.UINT8}
    assert "exact on any x86-64; other processors: not checked" in (saved / "report.html").read_text()
    said = fewbits("inspect", saved / "model.onnx").out
    assert said == ("profile: onnxruntime\nexact on: any x86-64; other processors: not checked\n"
                    "exact at: every optimisation level of onnxruntime\n")
    result = fewbits("export", saved / "model.fewbits", "--out", tmp_path / "a.onnx", "--processor", "this")
    assert result.code == 0, result.err
    assert "exact on " in result.out
    assert fewbits("verify", saved / "model.fewbits").out.count("\non ") == 1


def test_an_onnx_file_that_says_nothing(fewbits, tmp_path):
    empty = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    (tmp_path / "a.onnx").write_bytes(empty.SerializeToString())
    (tmp_path / "b.onnx").write_bytes(b"no protobuf")
    for name, told in (("a", "was not exported by fewbits"), ("b", "is no ONNX file"), ("c", "does not exist")):
        result = fewbits("inspect", tmp_path / f"{name}.onnx")
        assert result.code == 2 and told in result.err and "Traceback" not in result.err


@pytest.mark.parametrize("verb", ["quantize", "train"])
def test_a_refused_export_loses_nothing(small, fewbits, monkeypatch, tmp_path, verb):
    monkeypatch.chdir(small)
    monkeypatch.setattr(verified, "this_processor", lambda: NO_VNNI)
    (tmp_path / "model.onnx").write_bytes(b"of another run")
    learning = ("--recipe", "qat-w8a8", "--epochs", "1") if verb == "train" else ()
    result = fewbits(verb, *QUANTIZE[1:], *learning, "--out", tmp_path, "--processor", "vnni")
    assert result.code == 3, result.out + result.err
    assert result.err.splitlines()[-1].startswith("fewbits: ")
    assert "model.onnx was not written: a machine without VNNI adds products of 8-bit codes in pairs" in result.err
    assert "export it for `any`" in result.err
    assert f"model.fewbits, report.html and summary.json are in {tmp_path}" in result.err
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"model.fewbits", "report.html", "summary.json"}
    assert "model.onnx" not in written
    # The report ran the model that was asked for on the real processor, which may be such a machine, too.
    differs = json.loads((tmp_path / "summary.json").read_text())["mismatches"] > 0
    assert differs == processors.this_processor().adds_pairs_in_16_bits
    result = fewbits("export", tmp_path / "model.fewbits", "--out", tmp_path / "a.onnx", "--processor", "vnni")
    assert (result.code, (tmp_path / "a.onnx").exists()) == (3, False)
    assert fewbits("export", tmp_path / "model.fewbits", "--out", tmp_path / "a.onnx").code == 0


def test_a_file_that_onnx_runtime_does_not_open_loses_no_program(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    monkeypatch.setattr(report, "onnx_bytes", lambda program, **rest: b"no model")
    result = fewbits(*QUANTIZE, "--out", tmp_path)
    assert result.code == 3, result.out + result.err
    assert result.err.splitlines()[-1].endswith(f"; model.fewbits is in {tmp_path}, and there is no report")
    assert {path.name for path in tmp_path.iterdir()} == {"model.fewbits"}
    assert fewbits("verify", tmp_path / "model.fewbits").code == 0


def test_a_processor_that_is_none(saved, fewbits, tmp_path):
    result = fewbits("export", saved / "model.fewbits", "--out", tmp_path / "a.onnx", "--processor", "arm")
    assert result.code == 2
    assert "'arm'" in result.err

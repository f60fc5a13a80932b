"""ONNX files of large programs: written in pieces, verified with their weights in memory once, refused beyond 2 GB."""

import onnx
import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.engines.onnx_session import OnnxSession
from fewbits.errors import VerificationError
from fewbits.export import verified
from fewbits.writers.onnx import builder, program


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 4)).eval(), torch.rand(8, 300)
    return fb.quantize(net, x, [x], recipe="w8a8"), x


def test_pieces_are_what_protobuf_writes(model):
    told = {"fewbits.profile": "x", "a": "é"}
    pieces = list(program.onnx_pieces(model[0].program, metadata=told))
    assert len(pieces) > 3
    whole = b"".join(pieces)
    read = onnx.load_from_string(whole)
    assert read.SerializeToString() == whole
    assert {item.key: item.value for item in read.metadata_props} == told
    onnx.checker.check_model(read)


def test_a_large_program_is_verified_like_a_small_one(model, tmp_path, monkeypatch):
    model, x = model
    compared = fb.export_onnx(model, tmp_path / "a.onnx", [x, x[:3]])
    monkeypatch.setattr(verified, "_LARGE", 0)
    sessions: list[OnnxSession] = []

    def session(*given):
        sessions.append(OnnxSession(*given))
        return sessions[-1]

    monkeypatch.setattr(verified, "OnnxSession", session)
    assert fb.export_onnx(model, tmp_path / "b.onnx", [x, x[:3]]) == compared
    assert len(sessions) == 2 * 2, "one for each batch and level"
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(("module", "bytes_"), [(program, 1000), (builder, 2**20 + 1000)])
def test_more_than_protobuf_holds_is_refused_with_that_reason(model, tmp_path, monkeypatch, module, bytes_):
    model, x = model
    monkeypatch.setattr(module, "LARGEST", bytes_)
    with pytest.raises(VerificationError, match="more than 2 GB as one ONNX file"):
        fb.export_onnx(model, tmp_path / "a.onnx", [x])
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_not_verified_is_not_there(model, tmp_path):
    with pytest.raises(VerificationError, match="no batch to verify it on"):
        fb.export_onnx(model[0], tmp_path / "a.onnx", [])
    assert not list(tmp_path.iterdir())

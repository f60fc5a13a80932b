"""A network that torch.ao or torchao has quantized is refused in one sentence, whole or as a part."""

import warnings

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.errors import CaptureError, FewbitsError

X = torch.randn(4, 1, 8, 8)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()


def eager(converted: bool) -> nn.Module:
    from torch.ao import quantization as ao

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = ao.QuantWrapper(net()).eval()
        wrapped.qconfig = ao.get_default_qconfig("x86")
        ao.prepare(wrapped, inplace=True)
        wrapped(X)
        return ao.convert(wrapped) if converted else wrapped


def pt2e(converted: bool) -> nn.Module:
    flow = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = flow.prepare_pt2e(torch.export.export(net(), (X,)).module(), quantizer)
    prepared(X)
    return flow.convert_pt2e(prepared) if converted else prepared


@pytest.mark.parametrize(("make", "converted", "sentence"), [
    (eager, True, "is quantized by torch.ao"), (eager, False, "is prepared for quantization by torch.ao"),
    (pt2e, True, "is quantized by PT2E"), (pt2e, False, "is prepared for quantization by torchao")])
def test_refused_in_one_sentence(make, converted, sentence):
    quantized = make(converted)
    for given in (quantized, nn.Sequential(quantized)):
        with pytest.raises(CaptureError, match=sentence) as error:
            fb.capture(given, X)
        assert "give the float network" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_file_of_pt2e_says_so(tmp_path):
    torch.export.save(torch.export.export(pt2e(True), (X,)), tmp_path / "net.pt2")
    with pytest.raises(FewbitsError, match=r"net\.pt2 is quantized by PT2E \(torchao\).*export the float network"):
        fb.capture(tmp_path / "net.pt2", X)


def test_torchaos_tensors_are_refused():
    ao = pytest.importorskip("torchao.quantization")
    quantized = net()
    ao.quantize_(quantized, ao.Int8WeightOnlyConfig())
    with pytest.raises(CaptureError, match="submodule '3' is quantized by torchao"):
        fb.capture(quantized, X)


def test_an_ordinary_graph_module_is_taken():
    fb.capture(torch.fx.symbolic_trace(net()), X)
    fb.capture(torch.export.export(net(), (X,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module(), X)

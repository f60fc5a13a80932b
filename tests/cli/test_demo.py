"""The demo, whole: what it promises on real digits."""

import json


def test_demo(fewbits, tmp_path):
    result = fewbits("demo", "--out", tmp_path / "demo")
    assert result.code == 0
    assert "warning" not in result.err
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "model.fewbits", "model.onnx", "report.html", "summary.json"}
    page = (tmp_path / "demo/report.html").read_text()
    assert page.count("<details open>") == 3, "histograms of the three worst tensors are open"
    assert page.count('<figure class="plot">') == 24
    summary = json.loads((tmp_path / "demo/summary.json").read_text())
    assert summary["samples"] == 898
    assert summary["float_accuracy"] > 0.97
    assert (summary["float_accuracy"] - summary["accuracy"]) * 898 <= 2.001, "at most two images lost net"
    assert summary["mismatches"] == 0
    assert summary["compared_codes"] > 1_000_000
    assert fewbits("verify", tmp_path / "demo/model.fewbits").code == 0
